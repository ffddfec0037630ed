package tagfile

import (
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/protocols/point"
)

func TestReductionColumns(t *testing.T) {
	want := []point.Tag{
		{Name: "a", Address: "1", Reduce: point.Reduction{Swing: 0.25, Heartbeat: 5 * time.Minute, MinInterval: 500 * time.Millisecond}},
		{Name: "b", Address: "2", Dead: point.Deadband{Kind: point.EveryReading}},
		{Name: "c", Address: "3", Scale: point.Scale{Kind: point.Linear, RawHigh: 1, EngHigh: 10}, Reduce: point.Reduction{Swing: 1.5, SwingPercent: true}},
		{Name: "d", Address: "4", Dead: point.Deadband{Kind: point.OnChange}, Reduce: point.Reduction{SkipFirst: true}},
	}
	for name, text := range map[string]string{
		"a.csv": "name,address,raw_low,raw_high,eng_low,eng_high,deadband,swing,min_interval,heartbeat,skip_first\n" +
			"a,1,,,,,,0.25,500ms,5m0s,\n" +
			"b,2,,,,,none,,,,\n" +
			"c,3,0,1,0,10,,1.5%,,,\n" +
			"d,4,,,,,change,,,,true\n",
		"a.toml": `[[tag]]
name = "a"
address = "1"
swing = 0.25
min_interval = "500ms"
heartbeat = "5m0s"

[[tag]]
name = "b"
address = "2"
deadband = "none"

[[tag]]
name = "c"
address = "3"
raw_low = 0.0
raw_high = 1.0
eng_low = 0.0
eng_high = 10.0
swing = "1.5%"

[[tag]]
name = "d"
address = "4"
deadband = "change"
skip_first = true
`,
	} {
		got, err := Decode([]byte(text), name)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
		if back, err := Encode(want, name); err != nil || string(back) != text {
			t.Errorf("%v, written as\n%s\nwant\n%s", err, back, text)
		}
	}
}

func TestReductionMistakes(t *testing.T) {
	_, err := Decode([]byte("name,address,deadband,swing,min_interval,heartbeat,skip_first\n"+
		"a,1,,0.5 Cel,,,\n"+
		"b,1,,-1,,,\n"+
		"c,1,,2%,,,\n"+
		"d,1,1,1,,,\n"+
		"e,1,,,10,,\n"+
		"f,1,,,2s,1s,\n"+
		"g,1,,,,,yes\n"), "m.csv")
	want := []string{
		`m.csv:2: swing: "0.5 Cel" is not a number`,
		`m.csv:3: swing: the deviation must be above 0`,
		`m.csv:4: tag "c": swinging door: percent needs a linear scale, whose engineering range it is a part of`,
		`m.csv:5: tag "d": a tag has a dead-band or a swinging door, not both`,
		`m.csv:6: min_interval: "10" is not a time with its unit, such as "5s"`,
		`m.csv:7: tag "f": the least interval 2s is above the heartbeat 1s`,
		`m.csv:8: skip_first: want true or false, not "yes"`,
	}
	if err == nil || !slices.Equal(strings.Split(err.Error(), "\n"), want) {
		t.Errorf("%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
	_, err = Decode([]byte("[[tag]]\nname = \"a\"\naddress = 1\nswing = \"0.5\"\n"), "m.toml")
	if err == nil || err.Error() != `m.toml:4: swing: "0.5" is not a percentage such as "2%"; a number has no quotes` {
		t.Errorf("%v", err)
	}
}

func TestRuleFromTable(t *testing.T) {
	got, err := RuleFromTable(map[string]any{"match": "press*/temp*", "swing": "1%", "heartbeat": "5m", "min_interval": "1s"})
	want := point.ReduceRule{Match: "press*/temp*", Reduce: point.Reduction{
		Swing: 1, SwingPercent: true, Heartbeat: 5 * time.Minute, MinInterval: time.Second,
	}}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = RuleFromTable(map[string]any{"match": "a/b", "deadband": int64(2), "skip_first": true})
	if err != nil || got.Dead != (point.Deadband{Kind: point.Absolute, Value: 2}) || !got.Reduce.SkipFirst {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct {
		table map[string]any
		want  string
	}{
		{map[string]any{"deadband": 1.0}, `match: the pattern is missing, such as "press*/temp*"`},
		{map[string]any{"match": "a/b", "dedband": 1.0}, `dedband: unknown key (did you mean "deadband"?)`},
		{map[string]any{"match": "a/b", "unit": "Cel"}, `unit: unknown key (there are match, deadband, swing, min_interval, heartbeat, skip_first)`},
		{map[string]any{"match": "a/b"}, "changes nothing"},
		{map[string]any{"match": "a", "deadband": 1.0}, "want device/tag"},
		{map[string]any{"match": int64(3), "deadband": 1.0}, "want a text in quotes, not 3"},
		{map[string]any{"match": "a/b", "heartbeat": int64(3)}, "heartbeat: want a text in quotes, not 3"},
		{map[string]any{"match": "a/b", "swing": 1.0, "deadband": "change"}, "not both"},
	} {
		if _, err := RuleFromTable(tt.table); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.table, err, tt.want)
		}
	}
}
