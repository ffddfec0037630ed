package opcua

import (
	"reflect"
	"strings"
	"testing"

	"holdfast/protocols/opcua/wire"
)

func TestAddress(t *testing.T) {
	ns := namespaces{"http://opcfoundation.org/UA/", "urn:server", "urn:plant", "a;s=%b"}
	for _, tc := range []struct {
		text  string
		id    string
		names []wire.Name
	}{
		{"i=2258", "i=2258", nil},
		{"ns=2;s=Pump.Speed", "ns=2;s=Pump.Speed", nil},
		{"nsu=urn:plant;s=Pump;s=1", "ns=2;s=Pump;s=1", nil},
		{"nsu=a%3Bs=%25b;i=7", "ns=3;i=7", nil},
		{"ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63", "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63", nil},
		{"ns=1;b=AQI=", "ns=1;b=AQI=", nil},
		{"path=Server", "i=85", []wire.Name{{Name: "Server"}}},
		{"ns=2;path=Pump/Speed", "i=85", []wire.Name{{NS: 2, Name: "Pump"}, {NS: 2, Name: "Speed"}}},
		{"nsu=urn:plant;path=/0:Objects/Pump/1:Speed", "i=84", []wire.Name{{Name: "Objects"}, {NS: 2, Name: "Pump"}, {NS: 1, Name: "Speed"}}},
		{"nsu=urn:plant;path=a&/b/c&:d/x:y/7&:z", "i=85", []wire.Name{{NS: 2, Name: "a/b"}, {NS: 2, Name: "c:d"}, {NS: 2, Name: "x:y"}, {NS: 2, Name: "7:z"}}},
	} {
		a, err := parseAddress(tc.text)
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
			continue
		}
		id, ok := a.fixed(ns)
		names, ok2 := a.names(ns)
		if !ok || id.String() != tc.id || len(tc.names) > 0 && (!ok2 || !reflect.DeepEqual(names, tc.names)) {
			t.Errorf("%s is %s %v %v", tc.text, id, names, ok)
		}
		again, err := parseAddress(a.String())
		if err != nil || !reflect.DeepEqual(again, a) {
			t.Errorf("%s prints as %s, which is %+v, %v", tc.text, a, again, err)
		}
	}
	for _, text := range []string{
		"", "Tag", "s:Tag", "ns=2", "ns=x;i=1", "ns=65536;i=1", "ns=-1;i=1", "nsu=urn:x", "nsu=;i=1", "path=", "path=a//b", "path=a/",
		"path=/", "path=a&", "i=1;ns=2", "ns=2;q=1", strings.Repeat("x", maxAddress+1),
	} {
		if a, err := parseAddress(text); err == nil {
			t.Errorf("%.40q is %+v", text, a)
		}
	}
	a, err := parseAddress("nsu=urn:nobody;i=1")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := a.fixed(ns); ok {
		t.Error("a namespace that is not there is found")
	}
	if got := ns.text(wire.NodeID{NS: 3, Kind: wire.Text, Data: "x"}); got != "nsu=a%3Bs=%25b;s=x" {
		t.Errorf("the stable text is %q", got)
	}
}

// FuzzAddress: what is taken prints as something that means the same.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"i=1", "nsu=urn:a;s=b", "ns=2;path=a&/b/1:c", "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63", "nsu=x%3By;b=AQID", "path=/0:Objects"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		b, err := parseAddress(a.String())
		if err != nil {
			t.Fatalf("%q prints as %q: %v", s, a, err)
		}
		table := namespaces{"u0", "u1", a.uri}
		x, ok1 := a.fixed(table)
		y, ok2 := b.fixed(table)
		m, ok3 := a.names(table)
		n, ok4 := b.names(table)
		if x != y || ok1 != ok2 || ok3 != ok4 || !reflect.DeepEqual(m, n) {
			t.Errorf("%q prints as %q and means %v %v instead of %v %v", s, a, y, n, x, m)
		}
	})
}
