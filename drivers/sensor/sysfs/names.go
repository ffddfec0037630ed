package sysfs

import (
	"strings"

	"holdfast/drivers/sensor"
)

// A quantity is what a kind of channel measures: our unit, the factor to it from
// the kernel's, and bounds that no sensor of the kind goes beyond.
type quantity struct {
	kind     string
	unit     string
	factor   float64
	min, max float64
}

// hwmonQuantities are the attributes of sysfs-interface.rst.
func hwmonQuantities() []quantity {
	return []quantity{
		{"temp", "Cel", 1e-3, -273.15, 5000}, // millidegree Celsius
		{"in", "V", 1e-3, -1e5, 1e5},         // millivolt
		{"curr", "A", 1e-3, -1e5, 1e5},       // milliampere
		{"power", "W", 1e-6, -1e9, 1e9},      // microwatt
		{"energy", "J", 1e-6, 0, 1e15},       // microjoule
		{"humidity", "%", 1e-3, 0, 100},      // milli-percent
		{"fan", "/min", 1, 0, 1e6},           // revolutions a minute
	}
}

// iioQuantities are the channel types of sysfs-bus-iio.
func iioQuantities() []quantity {
	return []quantity{
		{"temp", "Cel", 1e-3, -273.15, 5000},    // milli degrees Celsius
		{"voltage", "V", 1e-3, -1e5, 1e5},       // millivolts
		{"current", "A", 1e-3, -1e5, 1e5},       // milliamps
		{"power", "W", 1e-3, -1e9, 1e9},         // milliwatts
		{"energy", "J", 1, 0, 1e15},             // joules
		{"resistance", "Ohm", 1, 0, 1e12},       // ohms
		{"pressure", "Pa", 1e3, 0, 1e9},         // kilopascal
		{"humidityrelative", "%", 1e-3, 0, 100}, // milli percent
		{"illuminance", "lx", 1, 0, 1e6},        // lux
		{"accel", "m/s2", 1, -1e6, 1e6},         // m/s^2
	}
}

// hwmonChannel tells the channel of a file: <kind><number>_input or, where there
// is no such, _average.
func hwmonChannel(file string, have func(string) bool) (sensor.Channel, source, bool) {
	stem, what, ok := strings.Cut(file, "_")
	if !ok || what != "input" && (what != "average" || have(stem+"_input")) {
		return sensor.Channel{}, source{}, false
	}
	kind := strings.TrimRight(stem, "0123456789")
	for _, q := range hwmonQuantities() {
		if q.kind != kind || kind == stem {
			continue
		}
		s := source{value: file, factor: q.factor}
		if have(stem + "_fault") {
			s.fault = stem + "_fault"
		}
		return q.channel(stem), s, true
	}
	return sensor.Channel{}, source{}, false
}

func (q *quantity) channel(name string) sensor.Channel {
	return sensor.Channel{Name: name, Unit: q.unit, Min: q.min, Max: q.max, Resolution: q.factor}
}

// iioChannel tells the channel of a file:
//
//	in_<type>[number][-<type><number>][_modifier]_input    a value in the type's unit
//	in_..._raw                                             to be offset and scaled, where there is no _input
//
// Offset and scale stand beside it under the channel's own name, or under that of
// its type if the channels of the type share them.
func iioChannel(file string, have func(string) bool) (sensor.Channel, source, bool) {
	stem, ok := strings.CutPrefix(file, "in_")
	stem, isInput := strings.CutSuffix(stem, "_input")
	raw, isRaw := strings.CutSuffix(stem, "_raw")
	if !ok || isInput == isRaw || isRaw && have("in_"+raw+"_input") {
		return sensor.Channel{}, source{}, false
	}
	if isRaw {
		stem = raw
	}
	first, modifier, _ := strings.Cut(stem, "_")
	first, second, differential := strings.Cut(first, "-")
	kind := strings.TrimRight(first, "0123456789")
	if differential && strings.TrimRight(second, "0123456789") != kind || !plain(modifier) {
		return sensor.Channel{}, source{}, false
	}
	for _, q := range iioQuantities() {
		if q.kind != kind {
			continue
		}
		s := source{value: file, factor: q.factor}
		if isRaw {
			shared := kind
			if differential {
				shared = kind + "-" + kind
			}
			s.offset = firstOf(have, "in_"+stem+"_offset", "in_"+shared+"_offset", "in_"+kind+"_offset")
			s.scale = firstOf(have, "in_"+stem+"_scale", "in_"+shared+"_scale", "in_"+kind+"_scale")
		}
		return q.channel(strings.ReplaceAll(stem, "_", "-")), s, true
	}
	return sensor.Channel{}, source{}, false
}

// plain reports whether a modifier, which may be empty, can be part of a name.
func plain(modifier string) bool {
	for word := range strings.SplitSeq(modifier, "_") {
		if word == "" && modifier != "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return true
}

func firstOf(have func(string) bool, names ...string) string {
	for _, n := range names {
		if have(n) {
			return n
		}
	}
	return ""
}
