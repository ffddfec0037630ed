package mqtt

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"holdfast/hub"
)

// everything is all names.
func everything() []string {
	return slices.Concat(recordNames, gatewayNames, deviceNames, tagNames)
}

// names returns the names that stand in t.
func (t template) names() (all []string) {
	for _, l := range t {
		for _, p := range l {
			if p.source != "" {
				all = append(all, p.source)
			}
		}
	}
	return all
}

func TestTemplate(t *testing.T) {
	r := &hub.Record{Topic: []byte("field/press7/readings"), Sender: []byte("a/b+")}
	full := &About{Device: "press7", Tag: "temp 1", Unit: "m/s", Class: "fast", Path: "acme/site1/area2/line3", Quality: "Good"}
	bare := &About{Device: "press7"}
	for _, c := range []struct {
		template string
		about    *About
		want     string
	}{
		{"{topic}", full, "field/press7/readings"},
		{"plants/{gateway}/{topic}", full, "plants/line%2F7/field/press7/readings"},
		{"{topic[0]}", full, "field"},
		{"{topic[1]}/x", full, "press7/x"},
		{"{topic[-1]}", full, "readings"},
		{"{topic[-3]}", full, "field"},
		{"x/{topic[-4]}", full, "x"},
		{"x/{topic[3]}", full, "x"},
		{"{topic[1:]}", full, "press7/readings"},
		{"{topic[:2]}", full, "field/press7"},
		{"{topic[:-1]}", full, "field/press7"},
		{"{topic[-2:]}", full, "press7/readings"},
		{"{topic[-9:2]}", full, "field/press7"},
		{"{topic[1:2]}", full, "press7"},
		{"x{topic[2:1]}", full, "x"},
		{"x{topic[5:9]}", full, "x"},
		{"{topic[:]}", full, "field/press7/readings"},
		{"{sender}", full, "a%2Fb%2B"},
		{"{path}/{device}/{tag}", full, "acme/site1/area2/line3/press7/temp 1"},
		{"{path}/{device}/{tag}", bare, "press7"},
		{"{path[1:3]}/{class}/{unit}", full, "site1/area2/fast/m%2Fs"},
		{"{enterprise}/{site}/{area}/{line}/{cell}/{tag}", full, "acme/site1/area2/line3/temp 1"},
		{"{enterprise|none}/{site|none}/{tag}", bare, "none/none"},
		{"{class|any}/{unit|1}/{device}", bare, "any/1/press7"},
		{"unit-{unit}/{device}", bare, "unit-/press7"},
		{"{device}{unit}", bare, "press7"},
		{"{path|no/where}/{device}", bare, "no/where/press7"},
		{"/a//{device}/", full, "/a//press7/"},
		{"{path}", bare, ""},
		{"", full, ""},
	} {
		p, err := parseTemplate(c.template, everything()...)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if got := string(p.append([]byte("> "), "line/7", r, c.about)); got != "> "+c.want {
			t.Errorf("%s gives %q, want %q", c.template, got[2:], c.want)
		}
	}
}

func TestBadTemplates(t *testing.T) {
	for template, want := range map[string]string{
		"a/+":           "wildcard",
		"a{":            "braces",
		"a}":            "braces",
		"{{topic}}":     "braces",
		"{topic{":       "braces",
		"{}":            `"{}" is not one of {topic}, {sender}`,
		"{topik}":       `"{topik}" is not one of`,
		"{tag[1]}":      `"{tag[1]}": only {topic}, {path} have levels`,
		"{topic[]}":     "want levels such as",
		"{topic[a]}":    "want levels such as",
		"{topic[1}":     "want levels such as",
		"{topic[1:b]}":  "want levels such as",
		"{topic[1:2:]}": "want levels such as",
		"{topic[1]x}":   "want levels such as",
	} {
		if _, err := parseTemplate(template, everything()...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", template, err, want)
		}
	}
}

// FuzzTemplate fills in whatever is a template: no text of a record can add
// levels where it is one level, or bring in a wildcard that was not in its topic.
func FuzzTemplate(f *testing.F) {
	f.Add("{path[1:]}/{device|x}/{tag}/{topic[-1]}", "a/b", "t/+", "x/y")
	f.Add("{enterprise}/{cell}//{unit|}", "", "", "")
	f.Add("{sender}/{gateway}-{class}{topic[-3:-1]}", "a", "#", "/")
	f.Fuzz(func(t *testing.T, s, topic, level, path string) {
		p, err := parseTemplate(s, everything()...)
		if err != nil {
			return
		}
		r := &hub.Record{Topic: []byte(topic), Sender: []byte(level)}
		a := &About{Device: level, Tag: level, Unit: level, Class: level, Path: path}
		got := p.append(nil, level, r, a)
		if !strings.ContainsAny(topic+path, "+#\x00") && bytes.ContainsAny(got, "+#\x00") {
			t.Fatalf("%q gives %q", s, got)
		}
		if names := p.names(); !slices.Contains(names, "topic") && !slices.Contains(names, "path") && !strings.Contains(s, "|") {
			if n, most := bytes.Count(got, []byte("/")), strings.Count(s, "/"); n > most {
				t.Fatalf("%q gives %q of %d levels", s, got, n+1)
			}
		}
		// Python's own words: every part of a topic is a part of it.
		for _, l := range p {
			for _, piece := range l {
				if part := piece.part.of([]byte(topic)); !strings.Contains(topic, string(part)) {
					t.Fatalf("%+v of %q is %q", piece.part, topic, part)
				}
			}
		}
	})
}
