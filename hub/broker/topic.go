package broker

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// sharePrefix begins the filter of a shared subscription (MQTT 5, 4.8.2).
const sharePrefix = "$share/"

var (
	errTopicEmpty    = violation("the topic name is empty")           // [MQTT-4.7.3-1]
	errTopicWildcard = violation("the topic name has wildcards")      // [MQTT-3.3.2-2]
	errTopicNul      = malformed("the topic name has U+0000")         // [MQTT-4.7.3-2]
	errTopicUTF8     = malformed("the topic name is not valid UTF-8") // [MQTT-3.3.2-1]
)

// checkTopic checks a topic name and counts its levels (MQTT 5, 4.7.3).
func checkTopic(t []byte) (levels int, f *fault) {
	if len(t) == 0 {
		return 0, errTopicEmpty
	}
	levels = 1
	ascii := byte(0)
	for _, c := range t {
		ascii |= c
		switch c {
		case '/':
			levels++
		case '+', '#':
			return 0, errTopicWildcard
		case 0:
			return 0, errTopicNul
		}
	}
	if ascii >= utf8.RuneSelf && !utf8.Valid(t) {
		return 0, errTopicUTF8
	}
	return levels, nil
}

func hasWildcard(t []byte) bool { return bytes.ContainsAny(t, "+#") }

// splitShare parts the filter of a shared subscription from its prefix. ok is
// false when the share name is not one [MQTT-4.8.2-1] [MQTT-4.8.2-2].
func splitShare(filter string) (inner string, shared, ok bool) {
	if !strings.HasPrefix(filter, sharePrefix) {
		return filter, false, filter != "$share"
	}
	name, inner, found := strings.Cut(filter[len(sharePrefix):], "/")
	return inner, true, found && name != "" && !strings.ContainsAny(name, "+#")
}

// validFilter reports whether the wildcards of a filter, without the prefix of a
// shared subscription, stand where they may (MQTT 5, 4.7.1), and counts its
// levels.
func validFilter(filter string) (levels int, ok bool) {
	if filter == "" {
		return 0, false
	}
	rest, more := filter, true
	for more {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		levels++
		switch {
		case level == "#":
			if more {
				return levels, false // [MQTT-4.7.1-1]
			}
		case level == "+":
		case strings.ContainsAny(level, "+#"):
			return levels, false // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
		}
	}
	return levels, true
}
