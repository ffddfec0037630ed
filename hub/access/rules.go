package access

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
)

// principal implements broker.Principal.
type principal struct {
	name      string
	publish   []string // filters
	subscribe []string
	last      atomic.Pointer[answer]
}

// answer is the last one about a publication, kept for a principal with many
// filters: most clients publish to one topic many times.
type answer struct {
	topic string
	may   bool
}

// Name implements broker.Principal.
func (p *principal) Name() string { return p.name }

// MayPublish implements broker.Principal.
func (p *principal) MayPublish(topic []byte) bool {
	if len(p.publish) <= fewFilters {
		return matchesAny(p.publish, topic)
	}
	if last := p.last.Load(); last != nil && last.topic == string(topic) {
		return last.may
	}
	may := matchesAny(p.publish, topic)
	p.last.Store(&answer{string(topic), may})
	return may
}

// fewFilters are matched in less time than it takes to remember an answer.
const fewFilters = 8

func matchesAny(filters []string, topic []byte) bool {
	for _, f := range filters {
		if matches(f, topic) {
			return true
		}
	}
	return false
}

// MaySubscribe implements broker.Principal.
func (p *principal) MaySubscribe(filter string) bool {
	for _, f := range p.subscribe {
		if covers(f, filter) {
			return true
		}
	}
	return false
}

// substitute appends filters with %u and %c replaced. A value that would
// change the shape of the filter leaves the filter out.
func substitute(dst, filters []string, identity, clientID string) []string {
	for _, f := range filters {
		if strings.Contains(f, "%u") {
			if !plain(identity) {
				continue
			}
			if strings.Contains(f, "%c") && !plain(clientID) {
				continue
			}
			f = strings.NewReplacer("%u", identity, "%c", clientID).Replace(f)
		} else if strings.Contains(f, "%c") {
			if !plain(clientID) {
				continue
			}
			f = strings.ReplaceAll(f, "%c", clientID)
		}
		dst = append(dst, f)
	}
	return dst
}

func plain(s string) bool { return s != "" && s[0] != '$' && !strings.ContainsAny(s, "/+#\x00") }

// checkFilter checks the form of a filter (MQTT 5, 4.7).
func checkFilter(f string) error {
	if f == "" {
		return errors.New("is empty")
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i != len(levels)-1) {
			return errors.New("# must be the whole last level")
		}
		if strings.Contains(l, "+") && l != "+" {
			return errors.New("+ must be a whole level")
		}
	}
	if strings.HasPrefix(f, "$share/") {
		return errors.New("rules name the filter without $share")
	}
	return nil
}

// matches reports whether a filter matches a topic. Wildcards at the first
// level do not match topics that begin with $ (MQTT 5, 4.7.2).
func matches(filter string, topic []byte) bool {
	if len(topic) > 0 && topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			return true
		}
		end := bytes.IndexByte(topic, '/')
		last := end < 0
		if last {
			end = len(topic)
		}
		if level != "+" && level != string(topic[:end]) {
			return false
		}
		if last {
			return !more || rest == "#"
		}
		if !more {
			return false
		}
		filter, topic = rest, topic[end+1:]
	}
}

// covers reports whether every topic that filter matches is matched by rule.
func covers(rule, filter string) bool {
	if filter == "" {
		return false
	}
	// A wildcard first level of the rule does not reach into $ topics.
	if filter[0] == '$' && (rule[0] == '+' || rule[0] == '#') {
		return false
	}
	for {
		r, ruleRest, ruleMore := strings.Cut(rule, "/")
		f, filterRest, filterMore := strings.Cut(filter, "/")
		switch {
		case r == "#":
			return true
		case f == "#":
			return false
		case r != "+" && r != f:
			return false
		}
		if !filterMore {
			return !ruleMore || ruleRest == "#"
		}
		if !ruleMore {
			return false
		}
		rule, filter = ruleRest, filterRest
	}
}
