package keystore

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// listStates returns the states of the lists that a query is about.
func listStates(w apikey.Which) []byte {
	switch w {
	case apikey.WhichEnded:
		return []byte{stateEnded}
	case apikey.WhichAll:
		return []byte{stateLive, stateEnded}
	}
	return []byte{stateLive}
}

// A listWalk goes through one or more lists as if they were one, by ID.
type listWalk []listIter

type listIter struct {
	*pebble.Iterator
	prefix []byte
}

func (w *listWalk) add(r pebble.Reader, prefix []byte) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err == nil {
		*w = append(*w, listIter{it, slices.Clip(prefix)})
	}
	return err
}

// page returns the IDs of a page, newest first.
func (w listWalk) page(q apikey.Query, total int) (ids []apikey.ID) {
	if !q.Before.IsZero() {
		for ok := w.seekAfter(q.Before); ok && len(ids) < q.Limit; ok = w.valid() {
			ids = append(ids, w.take(false))
		}
		slices.Reverse(ids)
		return ids
	}
	ok, skip := false, 0
	if !q.After.IsZero() {
		ok = w.seekBefore(q.After)
	} else if q.Offset < total {
		ok, skip = w.seekLast(), q.Offset
	}
	for ; ok && len(ids) < q.Limit; ok = w.valid() {
		id := w.take(true)
		if skip--; skip < 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// take returns the next ID, downwards or upwards, and moves past it.
func (w listWalk) take(down bool) apikey.ID {
	var best apikey.ID
	at := -1
	for i, it := range w {
		if !it.Valid() {
			continue
		}
		id := idAtEnd(it.Key())
		if c := bytes.Compare(id[:], best[:]); at < 0 || down && c > 0 || !down && c < 0 {
			best, at = id, i
		}
	}
	if down {
		w[at].Prev()
	} else {
		w[at].Next()
	}
	return best
}

func (w listWalk) seekLast() bool {
	for _, it := range w {
		it.Last()
	}
	return w.valid()
}

// seekBefore goes to the newest key that is older than the one with the ID.
func (w listWalk) seekBefore(id apikey.ID) bool {
	for _, it := range w {
		it.SeekLT(append(it.prefix, id[:]...))
	}
	return w.valid()
}

// seekAfter goes to the oldest key that is newer than the one with the ID.
func (w listWalk) seekAfter(id apikey.ID) bool {
	for _, it := range w {
		it.SeekGE(append(append(it.prefix, id[:]...), 0))
	}
	return w.valid()
}

func (w listWalk) valid() bool {
	return slices.ContainsFunc(w, func(it listIter) bool { return it.Valid() })
}

func (w listWalk) error() (err error) {
	for _, it := range w {
		err = errors.Join(err, it.Error())
	}
	return err
}

func (w listWalk) close() (err error) {
	for _, it := range w {
		err = errors.Join(err, it.Close())
	}
	return err
}
