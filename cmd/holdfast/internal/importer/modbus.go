package importer

import (
	"fmt"
	"net"
	"strings"

	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// A field is a Modbus value as foreign formats describe it.
type field struct {
	table modbus.Table
	item  int
	bit   int    // -1 = none
	typ   string // as ours; "" for bits
	order string // as ours, "" = the usual
}

// address sets a tag's address, type and order.
func (f *field) address(t *point.Tag) error {
	if f.item < 0 || f.item > 65535 {
		return fmt.Errorf("item %d is not in 0 to 65535", f.item)
	}
	a := modbus.Address{Table: f.table, Item: uint16(f.item), Bit: -1}
	if f.bit >= 0 {
		if f.table.Bits() || f.bit > 15 {
			return fmt.Errorf("there is no bit %d in %s", f.bit, a)
		}
		a.Bit = int8(f.bit)
	}
	t.Address = a.String()
	if f.table.Bits() || f.bit >= 0 {
		return nil
	}
	t.Type = f.typ
	if order := orderOf(f.typ, f.order); order != "" {
		param(t, "order", order)
	}
	return nil
}

// orderOf returns the order as a tag of a type takes it, "" for the usual one.
func orderOf(typ, order string) string {
	bytes := order == "BA" || order == "BADC" || order == "DCBA"
	if strings.HasPrefix(typ, "string") || strings.HasPrefix(typ, "bytes") || narrow(typ) {
		if bytes {
			return "BA"
		}
		return ""
	}
	if order == "ABCD" || order == "AB" {
		return ""
	}
	return order
}

// narrow reports whether a type has one register.
func narrow(typ string) bool {
	switch typ {
	case "int16", "uint16", "int8h", "int8l", "uint8h", "uint8l", "float16", "bcd16":
		return true
	}
	return false
}

// tcpTarget sets where a TCP device is.
func tcpTarget(settings map[string]any, hostport string) error {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = hostport, "502"
	}
	if host == "" {
		return fmt.Errorf("%q has no host", hostport)
	}
	settings["address"] = net.JoinHostPort(host, port)
	return nil
}

// parities are the ways in which formats write a parity.
var parities = map[string]string{"N": "none", "NONE": "none", "E": "even", "EVEN": "even", "O": "odd", "ODD": "odd"}

// serialLine sets the line of a device: what the format gives, and the stop bit
// that without parity is two here and one nearly everywhere else.
func (r *reader) serialLine(settings map[string]any, port string, baud, parity, stop, data *node) {
	settings["transport"], settings["port"] = "rtu", port
	if n := r.integer(baud, 0, 0, 4_000_000); n > 0 {
		settings["baud"] = int64(n)
	}
	if text := r.text(parity, ""); text != "" {
		if p, ok := parities[strings.ToUpper(text)]; ok {
			settings["parity"] = p
		} else {
			r.lost(parity.at(), parity.path(), "%q is no parity", text)
		}
	}
	if n := r.integer(stop, 0, 0, 2); n > 0 {
		settings["stop_bits"] = int64(n)
	} else if settings["parity"] == "none" {
		settings["stop_bits"] = int64(1)
	}
	if n := r.integer(data, 8, 0, 16); n != 8 && n != 0 {
		r.lost(data.at(), data.path(), "Modbus RTU has 8 data bits")
	}
}
