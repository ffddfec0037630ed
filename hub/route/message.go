package route

import "holdfast/hub"

// A Message is what a route looks at. Its methods are called only when a route
// asks; what they return stays valid and unchanged while it is matched.
//
// It has four methods because these are the four things a condition can name.
type Message interface {
	// Source is the message's path, with a slash at both ends.
	Source() []byte
	// Property returns an application property. Names are found as written
	// first and without regard to case otherwise.
	Property(name string) ([]byte, bool)
	// System returns a system property such as contentType.
	System(name string) ([]byte, bool)
	// Body returns the payload.
	Body() []byte
}

// Scratch is the working memory of one goroutine that matches messages. The
// zero value is ready.
type Scratch struct {
	m       Message
	dialect Dialect
	body    bodyState
	root    any
	args    []value // of function calls
	text    []byte  // results of string functions, until the next message
	seen    []bool  // by endpoint
	targets []hub.Target
}

func (s *Scratch) reset(m Message, d Dialect) {
	s.m, s.dialect, s.body, s.root = m, d, bodyUnread, nil
	s.text, s.args = s.text[:0], s.args[:0]
}
