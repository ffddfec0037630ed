package modbus

import (
	"cmp"
	"slices"
)

// limits is what bounds a request for one table.
type limits struct {
	items int // most items in one request
	gap   int // most items in a row that no tag asked for
}

// An item is the place of one tag's value: the index of the tag in its group,
// its first item and the one after its last.
type item struct {
	tag      int
	from, to int
}

// cuts are borders that no request may reach across, as learned from the
// device. A border is named by the item on its right.
type cuts map[int]struct{}

// within reports whether there is a cut from low to high, both included.
func (c cuts) within(low, high int) bool {
	if len(c) <= high-low {
		for at := range c {
			if low <= at && at <= high {
				return true
			}
		}
		return false
	}
	for at := low; at <= high; at++ {
		if _, ok := c[at]; ok {
			return true
		}
	}
	return false
}

// A span is a run of sorted items that one request reads.
type span struct {
	first, last int // indexes of sorted items, last excluded
	from, to    int // items of the table
}

// planSpans sorts items in place and divides them into the fewest spans that
// limits and cuts allow and, among those, the ones that read the fewest items.
// No value is divided. An item wider than the limit gets a span of its own.
//
// It is enough to look at runs of items in the order of their starts: if in some
// best plan a span skips an item that starts inside it, that item ends beyond
// the span's reach, and the span that does read it can take over everything that
// follows. So the best plan of the first n items is a best plan of the first m
// and one span, over all m for which that span is allowed.
func planSpans(items []item, lim limits, c cuts) []span {
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	apart := breaks(items, lim.gap, c)
	type best struct{ spans, read, prev, to int }
	plan := make([]best, len(items)+1)
	for n := 1; n <= len(items); n++ {
		to := 0
		for m := n - 1; m >= 0; m-- { // the last span is m to n
			to = max(to, items[m].to)
			width := to - items[m].from
			if n-m > 1 && (width > lim.items || apart[m+1]) {
				break
			}
			b := best{plan[m].spans + 1, plan[m].read + width, m, to}
			if m == n-1 || b.spans < plan[n].spans || b.spans == plan[n].spans && b.read < plan[n].read {
				plan[n] = b
			}
		}
	}
	var spans []span
	for n := len(items); n > 0; n = plan[n].prev {
		m := plan[n].prev
		spans = append(spans, span{first: m, last: n, from: items[m].from, to: plan[n].to})
	}
	slices.Reverse(spans)
	return spans
}

// breaks tells for each sorted item whether it may not share a span with the
// ones before it. Cuts inside a value are void: they were learned from tags
// that overlap it.
func breaks(items []item, gap int, c cuts) []bool {
	apart := make([]bool, len(items))
	end := 0 // of all items before
	for i, it := range items {
		if i > 0 && it.from >= end {
			apart[i] = it.from-end > gap || c.within(end, it.from)
		}
		end = max(end, it.to)
	}
	return apart
}

// divide returns the cuts that a span should get after the device has refused
// it as a whole: both borders of every gap in it, or if there is none the border
// between two values that is nearest to its middle. It returns nothing when the
// span cannot be divided.
func divide(items []item, s span) []int {
	var gaps, borders []int
	end := items[s.first].to
	for _, it := range items[s.first+1 : s.last] {
		switch {
		case it.from > end:
			gaps = append(gaps, end, it.from)
		case it.from == end:
			borders = append(borders, end)
		}
		end = max(end, it.to)
	}
	if len(gaps) > 0 {
		return gaps
	}
	if len(borders) == 0 {
		return nil
	}
	middle := (s.from + s.to) / 2
	return []int{slices.MinFunc(borders, func(a, b int) int {
		return cmp.Compare(max(a-middle, middle-a), max(b-middle, middle-b))
	})}
}
