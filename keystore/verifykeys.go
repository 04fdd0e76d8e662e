package keystore

import (
	"bytes"
	"errors"
	"time"

	"latchkey/apikey"
)

// idLength is the length of what most rows are named by.
const idLength = len(apikey.ID{})

// record checks a record and that everything that follows from it is there.
func (v *verifier) record(key, value []byte) {
	if len(key) != 1+idLength || len(value) < len(apikey.Digest{}) {
		v.problem("records: a row is damaged")
		return
	}
	id, digest, fields := idAtEnd(key), apikey.Digest(value), value[len(apikey.Digest{}):]
	k, err := decodeKey(fields, id, digest)
	if err != nil {
		v.problem("%v", err)
		return
	}
	row, err := get(v.r, appendDigestKey(nil, &digest))
	switch {
	case errors.Is(err, apikey.ErrNotFound):
		v.problem("key %s: its record by digest is missing", id)
	case err == nil:
		if !bytes.Equal(row.value, append(id[:], fields...)) {
			v.problem("key %s: its record by digest differs from its record", id)
		}
		row.close()
	}
	if !v.has(listKey(k)) {
		v.problem("key %s: it is missing in the list of %s keys of tenant %q", id, stateName(stateOf(k.Live())), k.Tenant)
	}
	v.wantDue(k, DueEnd, k.EndsAt())
	v.wantDue(k, DueRotation, nextRotation(k))
	if !k.Rotation.Pending.IsZero() && !v.has(outboxKey(id)) {
		v.problem("key %s: its rotation is pending and has no delivery", id)
	}
	if signsWebhooks(k) && !v.has(webhookKey(id)) {
		v.problem("key %s: its webhook has no secret", id)
	}
	v.history(k)
}

func stateName(state byte) string {
	if state == stateLive {
		return "live"
	}
	return "ended"
}

// signsWebhooks reports whether the key can have a delivery, for which its
// webhook's secret is kept.
func signsWebhooks(k *apikey.Key) bool {
	return k.Rotation.WebhookURL != "" && k.Live() && k.Rotation.ReplacedBy.IsZero()
}

func (v *verifier) wantDue(k *apikey.Key, kind DueKind, at time.Time) {
	if !at.IsZero() && !v.has(dueKey(kind, at, k.ID)) {
		v.problem("key %s: the row for %s is missing", k.ID, dueName(kind))
	}
}

func dueName(kind DueKind) string {
	switch kind {
	case DueEnd:
		return "when it ends"
	case DueRotation:
		return "when its rotation is due"
	case DueDelivery:
		return "when its delivery is due"
	case DueReceipt:
		return "when a receipt is over"
	}
	return "an unknown kind of due time"
}

// begins reports whether some row's key begins with the prefix.
func (v *verifier) begins(prefix []byte) bool {
	it, err := iter(v.r, prefix)
	if err != nil {
		return true
	}
	some := it.First()
	return it.Close() != nil || some
}

// key returns the record that another row is about, nil if it cannot be read,
// which is reported with it. Where there is none, it says so about what.
func (v *verifier) key(id apikey.ID, what string) *apikey.Key {
	k, err := byID(v.r, apikey.AnyTenant, id)
	if errors.Is(err, apikey.ErrNotFound) {
		v.problem("key %s: there is %s and no record", id, what)
	}
	if err != nil {
		return nil
	}
	return &k
}

// digest checks a record by digest. That the two are equal is found with the
// record.
func (v *verifier) digest(key, value []byte) {
	if len(key) != 1+len(apikey.Digest{}) || len(value) < idLength {
		v.problem("records by digest: a row is damaged")
		return
	}
	id := apikey.ID(value)
	if _, err := decodeKey(value[idLength:], id, apikey.Digest(key[1:])); err != nil {
		v.problem("record by digest: %v", err)
	}
	if k := v.key(id, "a record by digest"); k != nil && k.Digest != apikey.Digest(key[1:]) {
		v.problem("key %s: there is a record of it by a digest that is not its own", id)
	}
}

// listed checks a row of a list.
func (v *verifier) listed(key, value []byte) {
	if len(key) < 1+2+idLength || len(value) != 0 {
		v.problem("lists: a row is damaged")
		return
	}
	id := idAtEnd(key)
	if k := v.key(id, "a row of a list"); k != nil && !bytes.Equal(listKey(k), key) {
		v.problem("key %s: it is in a list that its record does not belong to", id)
	}
}

// total checks the form of a kept total; what it says is compared by lists.
func (v *verifier) total(key, value []byte) {
	if _, _, ok := listOf(key); !ok {
		v.problem("totals: a row is damaged")
		return
	}
	if _, err := countOf(value); err != nil {
		tenant, state, _ := listOf(key)
		v.problem("tenant %q: total of %s keys: %v", tenant, stateName(state), err)
	}
}

// listOf returns which list the first part of a row's key names.
func listOf(prefix []byte) (tenant string, state byte, ok bool) {
	if len(prefix) < 4 {
		return "", 0, false
	}
	end := len(prefix) - 2
	tenant, state = string(prefix[1:end]), prefix[end+1]
	return tenant, state, prefix[end] == 0 && (state == stateLive || state == stateEnded)
}

// lists counts every list again and compares that with the kept totals.
func (v *verifier) lists() {
	var list []byte // whose rows are being counted
	rows := 0
	compare := func() {
		if tenant, state, ok := listOf(list); ok {
			v.compareTotal(tenant, state, rows)
		}
	}
	v.each([]byte{familyList}, "lists", func(key, _ []byte) {
		if len(key) < idLength {
			return
		}
		if prefix := key[:len(key)-idLength]; !bytes.Equal(prefix, list) {
			compare()
			list, rows = bytes.Clone(prefix), 0
		}
		rows++
	})
	compare()
	v.each([]byte{familyCount}, "totals", func(key, _ []byte) {
		if tenant, state, ok := listOf(key); ok && !v.begins(listPrefix(familyList, tenant, state)) {
			v.compareTotal(tenant, state, 0)
		}
	})
}

func (v *verifier) compareTotal(tenant string, state byte, rows int) {
	if total, err := count(v.r, tenant, state); err == nil && total != rows {
		v.problem("tenant %q: the total of %s keys says %d, a recount gives %d", tenant, stateName(state), total, rows)
	}
}

// due checks that a due time is that of what it is about.
func (v *verifier) due(key, value []byte) {
	if len(key) != 1+1+8+idLength || len(value) != 0 {
		v.problem("due times: a row is damaged")
		return
	}
	kind, id := DueKind(key[1]), idAtEnd(key)
	var at time.Time
	switch kind {
	case DueEnd, DueRotation:
		k := v.key(id, "a due time")
		if k == nil {
			return
		}
		at = k.EndsAt()
		if kind == DueRotation {
			at = nextRotation(k)
		}
	case DueDelivery:
		d, err := v.readDelivery(id)
		if err != nil && !errors.Is(err, apikey.ErrNotFound) {
			return
		}
		at = d.NextAt
	case DueReceipt:
		r, err := v.readReceipt(apikey.ReceiptName(id))
		if err != nil && !errors.Is(err, apikey.ErrNotFound) {
			return
		}
		if at = r.Until; at.IsZero() || !bytes.Equal(dueKey(kind, at, id), key) {
			v.problem("receipt %x: there is a time when it is over that is not its own", id[:4])
		}
		return
	default:
		v.problem("due times: a row is of no known kind")
		return
	}
	if at.IsZero() || !bytes.Equal(dueKey(kind, at, id), key) {
		v.problem("key %s: there is a row for %s that does not follow from its record", id, dueName(kind))
	}
}
