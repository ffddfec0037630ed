package session

import (
	"strings"

	"holdfast/hub/journal"
)

// subscription is one filter of a feed.
type subscription struct {
	feed    *feed
	filter  string // as the client said it; shared ones begin with $share/
	topic   string // the filter without $share/name/
	qos     byte
	noLocal bool
	asIs    bool           // retain as published
	retain  byte           // retain handling, 0 to 2
	id      uint32         // subscription identifier
	since   journal.Offset // only messages with a greater offset are meant

	group   *group // of a shared subscription
	waiting int    // retained messages that the client does not have yet
	owed    bool   // retained messages are to be sent
}

// shared splits a $share filter; ok is false for any other.
func shared(filter string) (name, topic string, ok bool) {
	rest, ok := strings.CutPrefix(filter, "$share/")
	if !ok {
		return "", filter, false
	}
	name, topic, _ = strings.Cut(rest, "/")
	return name, topic, true
}

// tree finds the subscriptions that a topic matches. A node is one level; its
// memory is given back when the last subscription below it goes.
type tree struct {
	root  node
	cache map[string][]*match // by topic
}

type node struct {
	level map[string]*node
	plus  *node
	hash  []*subscription // filters that end in # here
	here  []*subscription // filters that end here
}

// maxCached bounds the cache of a tree. Overflow rule: it is emptied.
const maxCached = 4096

func (t *tree) add(s *subscription) {
	clear(t.cache)
	n := &t.root
	rest, more := s.topic, true
	for more {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#":
			n.hash = append(n.hash, s)
			return
		case level == "+":
			if n.plus == nil {
				n.plus = &node{}
			}
			n = n.plus
		default:
			next := n.level[level]
			if next == nil {
				if n.level == nil {
					n.level = make(map[string]*node)
				}
				next = &node{}
				n.level[strings.Clone(level)] = next
			}
			n = next
		}
	}
	n.here = append(n.here, s)
}

func (t *tree) remove(s *subscription) {
	clear(t.cache)
	t.root.remove(s, s.topic)
}

// remove takes s away below n and reports whether n is empty then.
func (n *node) remove(s *subscription, rest string) bool {
	level, rest, more := strings.Cut(rest, "/")
	switch {
	case level == "#":
		n.hash = without(n.hash, s)
	case level == "+":
		if n.plus != nil && n.plus.drop(s, rest, more) {
			n.plus = nil
		}
	default:
		if next := n.level[level]; next != nil && next.drop(s, rest, more) {
			delete(n.level, level)
		}
	}
	return n.empty()
}

func (n *node) drop(s *subscription, rest string, more bool) bool {
	if more {
		return n.remove(s, rest)
	}
	n.here = without(n.here, s)
	return n.empty()
}

func (n *node) empty() bool {
	return len(n.level) == 0 && n.plus == nil && len(n.hash) == 0 && len(n.here) == 0
}

func without(list []*subscription, s *subscription) []*subscription {
	for i, other := range list {
		if other == s {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			return list[:len(list)-1]
		}
	}
	return list
}

// match returns one entry for each feed that wants the topic. The result must
// not be changed.
func (t *tree) match(topic []byte) []*match {
	if m, ok := t.cache[string(topic)]; ok {
		return m
	}
	name := string(topic)
	var subs []*subscription
	// Wildcards at the first level do not match topics that begin with $
	// (MQTT 5, 4.7.2).
	t.root.collect(name, strings.HasPrefix(name, "$"), &subs)
	m := grouped(subs)
	if t.cache == nil {
		t.cache = make(map[string][]*match)
	} else if len(t.cache) >= maxCached {
		clear(t.cache)
	}
	t.cache[name] = m
	return m
}

func (n *node) collect(rest string, literal bool, into *[]*subscription) {
	if !literal {
		*into = append(*into, n.hash...)
	}
	level, rest, more := strings.Cut(rest, "/")
	if next := n.level[level]; next != nil {
		next.end(rest, more, into)
	}
	if n.plus != nil && !literal {
		n.plus.end(rest, more, into)
	}
}

func (n *node) end(rest string, more bool, into *[]*subscription) {
	if more {
		n.collect(rest, false, into)
		return
	}
	*into = append(*into, n.here...)
	*into = append(*into, n.hash...) // a/# matches a too (4.7.1.2)
}

// A match is how one feed wants a topic: all its subscriptions that match make
// one delivery with the highest QoS and every identifier.
type match struct {
	feed  *feed
	qos   byte
	asIs  bool
	local bool     // some of the subscriptions are "no local"
	own   *match   // instead of this one for the feed's own messages; nil = none
	ids   []uint32 // subscription identifiers
	since journal.Offset
}

// grouped makes the matches of subscriptions.
func grouped(subs []*subscription) []*match {
	var list []*match
	for _, s := range subs {
		m := find(list, s.feed)
		if m == nil {
			m = &match{feed: s.feed}
			list = append(list, m)
		}
		m.add(s)
		if s.noLocal {
			m.local = true
			continue
		}
		if m.own == nil {
			m.own = &match{feed: s.feed}
		}
		m.own.add(s)
	}
	for _, m := range list {
		if !m.local {
			m.own = nil
		}
	}
	return list
}

func find(list []*match, f *feed) *match {
	for _, m := range list {
		if m.feed == f {
			return m
		}
	}
	return nil
}

func (m *match) add(s *subscription) {
	m.qos = max(m.qos, s.qos)
	m.asIs = m.asIs || s.asIs
	m.since = max(m.since, s.since)
	if s.id != 0 {
		m.ids = append(m.ids, s.id)
	}
}

// matches reports whether a filter without $share matches a topic.
func matches(filter string, topic []byte) bool {
	if len(topic) > 0 && topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			return true
		}
		end := len(topic)
		for i, c := range topic {
			if c == '/' {
				end = i
				break
			}
		}
		if level != "+" && level != string(topic[:end]) {
			return false
		}
		if end == len(topic) {
			return !more || rest == "#"
		}
		if !more {
			return false
		}
		filter, topic = rest, topic[end+1:]
	}
}
