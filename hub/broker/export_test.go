package broker

// Resting reports whether all connections are where they stay until something
// happens: readers wait, and no writers run but those of stuck clients.
func (s *Server) Resting(stuck int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	writing := 0
	for c := range s.conns {
		c.mu.Lock()
		if c.writing {
			writing++
		}
		waits := c.idleSince.Load() != 0 || c.full || c.closing
		c.mu.Unlock()
		if !waits {
			return false
		}
	}
	return writing == stuck
}
