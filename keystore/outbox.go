package keystore

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"latchkey/apikey"
)

// Deliveries returns up to limit deliveries that are due at now, the longest due
// first, and none while the store takes no changes. With an error it returns those
// that could be read.
func (s *Store) Deliveries(now time.Time, limit int) ([]apikey.Delivery, error) {
	ids, err := s.Due(DueDelivery, now, limit)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	if s.checkRoom() != nil {
		return nil, nil // whatever a webhook takes now could not be put in force
	}
	var out []apikey.Delivery
	var errs []error // one that cannot be read does not hold up the others
	for _, id := range ids {
		switch d, err := s.delivery(id); {
		case err == nil:
			out = append(out, d)
		case !errors.Is(err, apikey.ErrNotFound): // or it is over since it was found to be due
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Postpone notes that a delivery failed and when it is to be tried next. One
// that is over is left alone. It does not wait for the disk: what a crash takes
// back is only that the delivery was postponed.
func (s *Store) Postpone(d apikey.Delivery) error {
	if err := s.use(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	s.write.Lock()
	defer s.write.Unlock()
	now, err := s.deliveryHead(d.Key)
	if errors.Is(err, apikey.ErrNotFound) || err == nil && now.Heir.ID != d.Heir.ID {
		return nil
	}
	if err != nil {
		return err
	}
	w := s.newWriter()
	defer w.batch.Close()
	w.delete(dueKey(DueDelivery, now.NextAt, d.Key))
	w.putDelivery(&d)
	if err := errors.Join(w.err, w.batch.Commit(pebble.NoSync)); err != nil {
		return fmt.Errorf("postpone delivery of key %s: %w", d.Key, err)
	}
	return nil
}

// WebhookSecret returns what deliveries about the key are signed with.
func (s *Store) WebhookSecret(id apikey.ID) (apikey.Secret, error) {
	if err := s.use(); err != nil {
		return "", err
	}
	defer s.life.RUnlock()
	return s.webhookSecret(id)
}

func (s *Store) webhookSecret(id apikey.ID) (apikey.Secret, error) {
	key := webhookKey(id)
	row, err := get(s.db, key)
	if err != nil {
		return "", err
	}
	defer row.close()
	secret, err := s.sealer.open(key, row.value)
	if err != nil {
		return "", fmt.Errorf("open webhook secret of key %s: %w", id, err)
	}
	return secret, nil
}

func (s *Store) delivery(id apikey.ID) (apikey.Delivery, error) {
	return s.readDelivery(id, s.sealer.open)
}

// deliveryHead returns a delivery without the secret: what is to end must end,
// whether or not it can be opened.
func (s *Store) deliveryHead(id apikey.ID) (apikey.Delivery, error) {
	return s.readDelivery(id, func(_, _ []byte) (apikey.Secret, error) { return "", nil })
}

func (s *Store) readDelivery(id apikey.ID, open func(row, sealed []byte) (apikey.Secret, error)) (apikey.Delivery, error) {
	key := outboxKey(id)
	row, err := get(s.db, key)
	if err != nil {
		return apikey.Delivery{}, err
	}
	defer row.close()
	d, err := decodeDelivery(row.value, id, func(sealed []byte) (apikey.Secret, error) { return open(key, sealed) })
	if err != nil {
		return apikey.Delivery{}, fmt.Errorf("decode delivery of key %s: %w", id, err)
	}
	return d, nil
}

// putDelivery writes a delivery and when it is due.
func (w *writer) putDelivery(d *apikey.Delivery) {
	key := outboxKey(d.Key)
	w.set(key, appendDelivery(nil, d, w.store.sealer.seal(key, apikey.Secret(d.Heir.Secret))))
	w.set(dueKey(DueDelivery, d.NextAt, d.Key), nil)
}

// followRotation keeps what stands beside a key in step with it: a delivery is
// there while the key waits for it, and a webhook's secret while there can be
// another delivery.
func (w *writer) followRotation(before, k *apikey.Key) {
	was := before.Rotation
	if !was.Pending.IsZero() && was.Pending != k.Rotation.Pending {
		d, err := w.store.deliveryHead(k.ID)
		if err != nil {
			w.fail(indexed(err))
			return
		}
		w.delete(outboxKey(k.ID))
		w.delete(dueKey(DueDelivery, d.NextAt, k.ID))
	}
	if was.WebhookURL != "" && before.Live() && !k.Live() {
		w.delete(webhookKey(k.ID))
	}
}

// passWebhookSecret hands a key's webhook secret to the one that replaces it.
func (w *writer) passWebhookSecret(from, to *apikey.Key) {
	switch secret, err := w.store.webhookSecret(from.ID); {
	case err == nil:
		w.putWebhookSecret(to, secret)
	case errors.Is(err, errCorrupt) || errors.Is(err, apikey.ErrNotFound):
		// The rotation at hand is not about it. Deliveries to come will say so.
		w.store.logger.Errorf("key %s: the secret of its webhook is lost: %v", from.ID, err)
	default:
		w.fail(err)
		return
	}
	w.delete(webhookKey(from.ID))
}

func (w *writer) putWebhookSecret(k *apikey.Key, secret apikey.Secret) {
	key := webhookKey(k.ID)
	w.set(key, w.store.sealer.seal(key, secret))
}

const (
	tagDeliveryHeir = iota + 1
	tagDeliverySecret
	tagDeliveryBegunAt
	tagDeliveryNextAt
	tagDeliveryAttempts
	tagDeliveryTaken
)

// appendDelivery appends all of d but its key's ID, which is in the row's key.
func appendDelivery(b []byte, d *apikey.Delivery, sealed []byte) []byte {
	b = appendField(b, tagDeliveryHeir, d.Heir.ID[:])
	b = appendField(b, tagDeliverySecret, sealed)
	b = appendTime(b, tagDeliveryBegunAt, d.BegunAt)
	b = appendTime(b, tagDeliveryNextAt, d.NextAt)
	b = appendUint(b, tagDeliveryAttempts, uint64(d.Attempts))
	if d.Taken {
		b = appendUint(b, tagDeliveryTaken, 1)
	}
	return b
}

// decodeDelivery reads what appendDelivery wrote.
func decodeDelivery(row []byte, id apikey.ID, open func([]byte) (apikey.Secret, error)) (apikey.Delivery, error) {
	d, sealed := apikey.Delivery{Key: id}, false
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
		switch tag {
		case tagDeliveryHeir:
			err = v.id(&d.Heir.ID)
		case tagDeliverySecret:
			var secret apikey.Secret
			secret, err = open([]byte(v))
			sealed = true
			d.Heir.Secret = string(secret)
		case tagDeliveryBegunAt:
			d.BegunAt, err = v.time()
		case tagDeliveryNextAt:
			d.NextAt, err = v.time()
		case tagDeliveryAttempts:
			var n uint64
			n, err = v.uint()
			d.Attempts = int(n)
		case tagDeliveryTaken:
			var n uint64
			if n, err = v.uint(); n != 1 {
				err = errCorrupt
			}
			d.Taken = true
		default:
			err = errCorrupt
		}
		return err
	})
	if err == nil && (d.Heir.ID.IsZero() || !sealed || d.NextAt.IsZero()) {
		err = errCorrupt
	}
	return d, err
}
