package config

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"holdfast/protocols"
	"holdfast/protocols/modbus"
)

// loadFiles loads c.toml of some files with the real check of Modbus.
func loadFiles(files map[string]string) (*Config, error) {
	check := modbus.New(protocols.Env{}, modbus.Options{}).Check
	return Load("c.toml", func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}, Kinds{
		Protocol: func(name string) DeviceCheck {
			if name == "modbus" {
				return check
			}
			return nil
		},
		Protocols: []string{"modbus"},
	})
}

const meter = "[[field.device]]\nname = \"m\"\nproduct = \"eastron-sdm630\"\ntransport = \"rtu\"\nport = \"/dev/ttyS0\"\n"

// TestProduct takes settings and tags from the library, with the device's own
// over them.
func TestProduct(t *testing.T) {
	c, err := loadFiles(map[string]string{
		"c.toml": meter + "unit = 7\nparity = \"even\"\nproduct_tags = [\"voltage_l?\"]\ntags = \"t.csv\"\n" +
			"[[field.device.tag]]\nname = \"power\"\nclass = \"normal\"\ndeadband = 5\n[[field.device.tag]]\nname = \"own\"\naddress = \"40001\"\n",
		"t.csv": "name,address,type\nvoltage_l2,30101,float32\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	d := c.Field.Devices[0]
	if d.Protocol != "modbus" || d.Settings["baud"] != int64(9600) || d.Settings["parity"] != "even" || d.Own["baud"] != nil {
		t.Errorf("settings %v, own %v", d.Settings, d.Own)
	}
	got := map[string]string{}
	for _, tag := range d.Tags {
		got[tag.Name] = tag.Address
	}
	want := map[string]string{"voltage_l1": "30001", "voltage_l2": "30101", "voltage_l3": "30005", "power": "30053", "own": "40001"}
	if len(got) != len(want) || len(d.Tags) != len(want) {
		t.Errorf("tags %v", got)
	}
	for name, address := range want {
		if got[name] != address {
			t.Errorf("%s is at %q, want %q", name, got[name], address)
		}
	}
}

func TestProductMistakes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Replace(meter, "sdm630", "sdm63", 1), `c.toml:3: field.device[0].product: "eastron-sdm63" is not in the library; did you mean "eastron-sdm630"?`},
		{strings.Replace(meter, "eastron-sdm630", "toaster", 1), `"toaster" is not in the library`},
		{meter + "protocol = \"sim\"\n", `field.device[0].protocol: "sim": product "eastron-sdm630" speaks modbus`},
		{meter + "product_tags = [\"watt*\"]\n", `c.toml:6: field.device[0].product_tags: no tag of product "eastron-sdm630" matches "watt*"`},
		{meter + "max_registers = 1\nproduct_tags = [\"power\"]\n", `tag "power": type "float32": 2 registers are more than max_registers = 1`},
		{meter + "[[field.device.tag]]\nname = \"power\"\ntype = \"flaot32\"\n", `c.toml:6: field.device[0].tag[0]: type "flaot32": is unknown`},
		{"[[field.device]]\nname = \"m\"\nprotocol = \"modbus\"\naddress = \"h\"\nproduct_tags = [\"a\"]\n[[field.device.tag]]\nname = \"a\"\naddress = \"40001\"\n", "product_tags: belongs to a product"},
	} {
		_, err := loadFiles(map[string]string{"c.toml": c.text})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %s\ngot %v", c.want, err)
		}
	}
	if _, err := loadFiles(nil); !errors.As(err, new(*NoFileError)) {
		t.Error(err)
	}
}
