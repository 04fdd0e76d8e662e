package keystore

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// Receipt returns the receipt of that name, also one that is over and not yet
// swept. One that is not there gives apikey.ErrNotFound.
func (s *Store) Receipt(name apikey.ReceiptName) (apikey.Receipt, error) {
	if err := s.use(); err != nil {
		return apikey.Receipt{}, err
	}
	defer s.life.RUnlock()
	r, err := s.receipt(name)
	if err == nil {
		// Whoever gets the answer is told what the call did, so that has to be on
		// disk: the row is visible a moment before it is.
		s.settle()
	}
	return r, err
}

// DropReceipts erases up to limit receipts that are over at now, and returns how
// many it erased. It does not wait for the disk: what a crash brings back is
// over all the same.
func (s *Store) DropReceipts(now time.Time, limit int) (int, error) {
	names, err := s.Due(DueReceipt, now, limit)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	if err := s.use(); err != nil {
		return 0, err
	}
	defer s.life.RUnlock()
	s.write.Lock()
	defer s.write.Unlock()
	w := s.newWriter()
	defer w.batch.Close()
	for _, name := range names {
		r, err := s.receiptHead(apikey.ReceiptName(name))
		if errors.Is(err, apikey.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if r.Over(now) { // it may have made way for another since
			w.dropReceipt(&r)
		}
	}
	if err := errors.Join(w.err, w.batch.Commit(pebble.NoSync)); err != nil {
		return 0, fmt.Errorf("drop receipts: %w", err)
	}
	return len(names), nil
}

func (s *Store) receipt(name apikey.ReceiptName) (apikey.Receipt, error) {
	return s.readReceipt(name, s.sealer.open)
}

// receiptHead returns a receipt without its answer.
func (s *Store) receiptHead(name apikey.ReceiptName) (apikey.Receipt, error) {
	return s.readReceipt(name, func(_, _ []byte) (apikey.Secret, error) { return "", nil })
}

func (s *Store) readReceipt(name apikey.ReceiptName, open func(row, sealed []byte) (apikey.Secret, error)) (apikey.Receipt, error) {
	key := receiptKey(name)
	row, err := get(s.db, key)
	if err != nil {
		return apikey.Receipt{}, err
	}
	defer row.close()
	r, err := decodeReceipt(row.value, name, func(sealed []byte) (apikey.Secret, error) { return open(key, sealed) })
	if err != nil {
		return apikey.Receipt{}, fmt.Errorf("decode receipt: %w", err)
	}
	return r, nil
}

// putReceipt writes a receipt, unless one of that name is there and not over:
// then the call has been answered, and the whole change is off.
func (w *writer) putReceipt(r *apikey.Receipt, now time.Time) error {
	before, err := w.store.receiptHead(r.Name)
	switch {
	case err == nil && !before.Over(now):
		return apikey.ErrAnswered
	case err == nil:
		w.dropReceipt(&before)
	case !errors.Is(err, apikey.ErrNotFound):
		return err
	}
	key := receiptKey(r.Name)
	w.set(key, appendReceipt(nil, r, w.store.sealer.seal(key, r.Answer)))
	w.set(dueKey(DueReceipt, r.Until, apikey.ID(r.Name)), nil)
	return nil
}

func (w *writer) dropReceipt(r *apikey.Receipt) {
	w.delete(receiptKey(r.Name))
	w.delete(dueKey(DueReceipt, r.Until, apikey.ID(r.Name)))
}

const (
	tagReceiptCall = iota + 1
	tagReceiptUntil
	tagReceiptStatus
	tagReceiptAnswer
)

// appendReceipt appends all of r but its name, which is in the row's key.
func appendReceipt(b []byte, r *apikey.Receipt, sealed []byte) []byte {
	b = appendField(b, tagReceiptCall, r.Call[:])
	b = appendTime(b, tagReceiptUntil, r.Until)
	b = appendUint(b, tagReceiptStatus, uint64(r.Status))
	return appendField(b, tagReceiptAnswer, sealed)
}

// decodeReceipt reads what appendReceipt wrote.
func decodeReceipt(row []byte, name apikey.ReceiptName, open func([]byte) (apikey.Secret, error)) (apikey.Receipt, error) {
	r, fields := apikey.Receipt{Name: name}, 0
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
		fields++
		switch tag {
		case tagReceiptCall:
			if len(v) != len(r.Call) {
				return errCorrupt
			}
			r.Call = apikey.Digest([]byte(v))
		case tagReceiptUntil:
			r.Until, err = v.time()
		case tagReceiptStatus:
			var n uint64
			n, err = v.uint()
			r.Status = int(n)
		case tagReceiptAnswer:
			r.Answer, err = open([]byte(v))
		default:
			err = errCorrupt
		}
		return err
	})
	if err == nil && fields != tagReceiptAnswer { // it has all of them
		err = errCorrupt
	}
	return r, err
}
