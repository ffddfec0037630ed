package client

// minAliased is the shortest topic for which an alias, whose property has three
// bytes, is worth having.
const minAliased = 4

// maxAliasGrowth is by how much the first use of an alias makes a packet longer:
// the property, and one byte more in each of the two lengths.
const maxAliasGrowth = 5

// alias returns m as it is sent: with its topic and a new alias, with the alias
// alone, or as it is. It is called in the order in which messages go out, so the
// server has met the topic before its alias. The caller holds mu.
func (c *Conn) alias(m Message) Message {
	if id, known := c.aliases[string(m.Topic)]; known {
		m.Topic, m.alias = nil, id
		return m
	}
	if len(m.Topic) < minAliased || len(c.aliases) >= c.maxAlias {
		return m
	}
	if remaining, _ := publishSize(&m, c.o.Version); 1+varintSize(remaining)+remaining+maxAliasGrowth > c.maxPacket || remaining+maxAliasGrowth > maxRemaining {
		return m
	}
	if c.aliases == nil {
		c.aliases = map[string]uint16{}
	}
	m.alias = uint16(len(c.aliases) + 1)
	c.aliases[string(m.Topic)] = m.alias
	return m
}
