package point

import (
	"errors"
	"fmt"
	"strings"
)

// A ReduceRule gives a dead-band and a reduction to all tags that its pattern
// matches.
type ReduceRule struct {
	// Match is "device/tag", each part a name in which * stands for any
	// characters, also none, and ? for one: "press*/temp*".
	Match string

	Dead   Deadband // NoDeadband = the rule does not say
	Reduce Reduction
}

// Check reports what is wrong with a rule by itself. Whether it suits a tag is
// told by the Check of the tag that ApplyRules returns.
func (r *ReduceRule) Check() error {
	device, tag, ok := strings.Cut(r.Match, "/")
	if !ok || device == "" || tag == "" || strings.Contains(tag, "/") {
		return fmt.Errorf("match %q: want device/tag, such as \"press*/temp*\"", r.Match)
	}
	if r.Dead == (Deadband{}) && r.Reduce == (Reduction{}) {
		return fmt.Errorf("match %q: the rule changes nothing", r.Match)
	}
	// Percentages are checked with the tag's scale; here any will do.
	some := Scale{Kind: Linear, RawHigh: 1, EngHigh: 1}
	if err := errors.Join(r.Dead.Check(some), r.Reduce.Check(some, r.Dead)); err != nil {
		return fmt.Errorf("match %q: %w", r.Match, err)
	}
	return nil
}

// Matches reports whether the rule is for a tag.
func (r *ReduceRule) Matches(device, tag string) bool {
	d, t, ok := strings.Cut(r.Match, "/")
	return ok && wildcard(d, device) && wildcard(t, tag)
}

// ApplyRules returns the tags of a device with what the rules say filled in, and
// for each rule how many tags it matched. What a tag says itself stays; of rules
// that say the same thing the later one holds. A dead-band and a swinging door are
// one thing: a tag or a rule that has either says nothing for the rules before
// it to change. Without a matching rule the tags come back as they are, not
// copied.
func ApplyRules(rules []ReduceRule, device string, tags []Tag) (out []Tag, matched []int) {
	matched = make([]int, len(rules))
	out = tags
	var here []int // the rules whose device matches
	for i := range rules {
		if d, _, ok := strings.Cut(rules[i].Match, "/"); ok && wildcard(d, device) {
			here = append(here, i)
		}
	}
	for i := range tags {
		t := tags[i]
		for k := len(here) - 1; k >= 0; k-- {
			if r := &rules[here[k]]; r.Matches(device, t.Name) {
				matched[here[k]]++
				r.fill(&t)
			}
		}
		if t.Dead == tags[i].Dead && t.Reduce == tags[i].Reduce {
			continue
		}
		if &out[0] == &tags[0] {
			out = append([]Tag(nil), tags...)
		}
		out[i] = t
	}
	return out, matched
}

// fill gives a tag what it does not say yet.
func (r *ReduceRule) fill(t *Tag) {
	if t.Dead.Kind == NoDeadband && t.Reduce.Swing == 0 {
		t.Dead, t.Reduce.Swing, t.Reduce.SwingPercent = r.Dead, r.Reduce.Swing, r.Reduce.SwingPercent
	}
	if t.Reduce.MinInterval == 0 {
		t.Reduce.MinInterval = r.Reduce.MinInterval
	}
	if t.Reduce.Heartbeat == 0 {
		t.Reduce.Heartbeat = r.Reduce.Heartbeat
	}
	t.Reduce.SkipFirst = t.Reduce.SkipFirst || r.Reduce.SkipFirst
}

// wildcard reports whether a name matches a pattern of * and ?. It takes time in
// proportion to the product of the lengths at worst.
func wildcard(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	star, from := -1, 0 // the last *, and where what it stands for ends so far
	i, k := 0, 0
	for k < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, k
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[k]):
			i++
			k++
		case star >= 0:
			from++
			i, k = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
