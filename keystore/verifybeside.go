package keystore

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"latchkey/apikey"
)

// placeAtEnd returns the place that ends a row's key.
func placeAtEnd(key []byte) apikey.Place {
	at := key[len(key)-placeLength:]
	return apikey.Place{Revision: binary.BigEndian.Uint64(at), Ordinal: binary.BigEndian.Uint32(at[8:])}
}

const placeLength = 8 + 4

// event checks an event of the audit log and that it can be found.
func (v *verifier) event(key, value []byte) {
	if len(key) != 1+placeLength {
		v.problem("audit log: a row is damaged")
		return
	}
	at := placeAtEnd(key)
	if at.Ordinal > 0 && at != (apikey.Place{Revision: v.lastEvent.Revision, Ordinal: v.lastEvent.Ordinal + 1}) {
		v.problem("audit event %s: one before it of the same change is not there", at)
	}
	v.lastEvent, v.summary.Revision = at, at.Revision // they ascend
	e, err := decodeEvent(value, at)
	if err != nil {
		v.problem("%v", err)
		return
	}
	if e.SigningKey != "" {
		there, told := v.signers[e.SigningKey]
		added := e.Action == apikey.ActionSigningKeyAdded
		switch {
		case added && told:
			v.problem("audit event %s: signing key %q was added before", at, e.SigningKey)
		case !added && !there:
			v.problem("audit event %s: signing key %q was not there to withdraw", at, e.SigningKey)
		}
		v.signers[e.SigningKey] = added
		return
	}
	if !v.has(keyAuditKey(e.Key, at.Revision, at.Ordinal)) {
		v.problem("audit event %s: it is missing in the log of key %s", at, e.Key)
	}
	if !v.has(tenantAuditKey(e.Tenant, at.Revision, at.Ordinal)) {
		v.problem("audit event %s: it is missing in the log of tenant %q", at, e.Tenant)
	}
	if !v.has(recordKey(e.Key)) {
		v.problem("audit event %s: its key %s has no record", at, e.Key)
	}
}

// history requires that the audit log tells how a key came to be as it is.
func (v *verifier) history(k *apikey.Key) {
	told, first, whole := map[apikey.Action]int{}, apikey.Action(""), true
	v.each(append([]byte{familyKeyAudit}, k.ID[:]...), "audit log by key", func(key, _ []byte) {
		at := placeAtEnd(key)
		row, err := get(v.r, auditKey(at.Revision, at.Ordinal))
		if err != nil {
			whole = false // which is reported with the events
			return
		}
		defer row.close()
		e, err := decodeEvent(row.value, at)
		whole = whole && err == nil && e.Key == k.ID
		if told[e.Action]++; first == "" {
			first = e.Action
		}
	})
	switch {
	case !whole:
		return
	case first == "":
		v.problem("key %s: the audit log has nothing about it", k.ID)
		return
	case first != apikey.ActionCreated:
		v.problem("key %s: the audit log does not begin with its creation", k.ID)
	}
	for _, action := range []apikey.Action{apikey.ActionCreated, apikey.ActionRevoked, apikey.ActionRotated, apikey.ActionEnded} {
		if told[action] > 1 {
			v.problem("key %s: the audit log has it %s %d times", k.ID, action, told[action])
		}
	}
	v.agree(k, apikey.ActionRevoked, !k.RevokedAt.IsZero(), told[apikey.ActionRevoked] > 0)
	v.agree(k, apikey.ActionRotated, !k.Rotation.ReplacedBy.IsZero(), told[apikey.ActionRotated] > 0)
	// A rotation without grace ends a key too.
	v.agree(k, apikey.ActionEnded, !k.EndedAt.IsZero(), told[apikey.ActionEnded] > 0 || !k.EndedAt.IsZero() && told[apikey.ActionRotated] > 0)
}

// agree reports a key that was changed without the audit log's telling, or the
// other way round.
func (v *verifier) agree(k *apikey.Key, action apikey.Action, is, told bool) {
	if is && !told {
		v.problem("key %s: it was %s, and the audit log does not say so", k.ID, action)
	}
	if told && !is {
		v.problem("key %s: the audit log has it %s, and it is not", k.ID, action)
	}
}

func (v *verifier) eventOfKey(key, value []byte) {
	if len(key) != 1+idLength+placeLength || len(value) != 0 {
		v.problem("audit log by key: a row is damaged")
		return
	}
	id := apikey.ID(key[1:])
	v.indexedEvent(key, func(e *apikey.Event) bool { return e.Key == id }, "key "+id.String())
}

func (v *verifier) eventOfTenant(key, value []byte) {
	end := len(key) - placeLength - 1
	if end < 1 || key[end] != 0 || len(value) != 0 {
		v.problem("audit log by tenant: a row is damaged")
		return
	}
	tenant := string(key[1:end])
	v.indexedEvent(key, func(e *apikey.Event) bool { return e.Tenant == tenant }, "a tenant")
}

// indexedEvent checks that there is the event that an index names.
func (v *verifier) indexedEvent(key []byte, belongs func(*apikey.Event) bool, whose string) {
	at := placeAtEnd(key)
	row, err := get(v.r, auditKey(at.Revision, at.Ordinal))
	if errors.Is(err, apikey.ErrNotFound) {
		v.problem("audit event %s: it is in the log of %s and is not there", at, whose)
	}
	if err != nil {
		return
	}
	defer row.close()
	if e, err := decodeEvent(row.value, at); err == nil && !belongs(&e) {
		v.problem("audit event %s: it is in the log of %s and is about another", at, whose)
	}
}

func (v *verifier) signing(key, value []byte) {
	var open func([]byte) (apikey.Secret, error)
	if v.open != nil {
		open = v.opener(key)
	}
	id := string(key[1:])
	k, err := decodeSigningKey(value, id, open)
	if err != nil {
		v.problem("%v", err)
	}
	there, told := v.signers[id]
	switch delete(v.signers, id); {
	case !told:
		v.problem("signing key %q: the audit log has nothing about it", id)
	case !there:
		v.problem("signing key %q: the audit log has it withdrawn, and it is there", id)
	}
	if err == nil && k.Signs() {
		if v.signer != "" {
			v.problem("signing key %q: it signs, and so does %q", id, v.signer)
		}
		v.signer = id
	}
}

// signersLost reports the signing keys that are to be there and are not.
func (v *verifier) signersLost() {
	for _, id := range slices.Sorted(maps.Keys(v.signers)) {
		if v.signers[id] {
			v.problem("signing key %q: the audit log has it added, and it is not there", id)
		}
	}
}

func (v *verifier) use(key, value []byte) {
	if len(key) != 1+idLength {
		v.problem("last uses: a row is damaged")
		return
	}
	id := idAtEnd(key)
	if _, err := decodeUse(value, id); err != nil {
		v.problem("key %s: its last use: %v", id, err)
	}
	v.key(id, "a last use")
}

func (v *verifier) receipt(key, value []byte) {
	if len(key) != 1+len(apikey.ReceiptName{}) {
		v.problem("receipts: a row is damaged")
		return
	}
	name := apikey.ReceiptName(key[1:])
	r, err := decodeReceipt(value, name, v.opener(key))
	if err != nil {
		v.problem("receipt %x: %v", name[:4], err)
		return
	}
	if !v.has(dueKey(DueReceipt, r.Until, apikey.ID(name))) {
		v.problem("receipt %x: the row for when it is over is missing", name[:4])
	}
}

func (v *verifier) readReceipt(name apikey.ReceiptName) (apikey.Receipt, error) {
	row, err := get(v.r, receiptKey(name))
	if err != nil {
		return apikey.Receipt{}, err
	}
	defer row.close()
	return decodeReceipt(row.value, name, unopened)
}

// unopened leaves what is sealed as it is.
func unopened([]byte) (apikey.Secret, error) { return "", nil }

// opener returns what opens the sealed part of a row, if anything does.
func (v *verifier) opener(key []byte) func([]byte) (apikey.Secret, error) {
	if v.open == nil {
		return unopened
	}
	return func(sealed []byte) (apikey.Secret, error) { return v.open(key, sealed) }
}

func (v *verifier) delivery(key, value []byte) {
	if len(key) != 1+idLength {
		v.problem("deliveries: a row is damaged")
		return
	}
	id := idAtEnd(key)
	d, err := decodeDelivery(value, id, v.opener(key))
	if err != nil {
		v.problem("key %s: its delivery: %v", id, err)
		return
	}
	if k := v.key(id, "a delivery"); k != nil && k.Rotation.Pending != d.Heir.ID {
		v.problem("key %s: there is a delivery of a rotation that is not pending", id)
	}
	if !v.has(dueKey(DueDelivery, d.NextAt, id)) {
		v.problem("key %s: the row for %s is missing", id, dueName(DueDelivery))
	}
}

func (v *verifier) readDelivery(id apikey.ID) (apikey.Delivery, error) {
	row, err := get(v.r, outboxKey(id))
	if err != nil {
		return apikey.Delivery{}, err
	}
	defer row.close()
	return decodeDelivery(row.value, id, unopened)
}

func (v *verifier) webhook(key, value []byte) {
	if len(key) != 1+idLength {
		v.problem("webhook secrets: a row is damaged")
		return
	}
	id := idAtEnd(key)
	if _, err := v.opener(key)(value); err != nil {
		v.problem("key %s: its webhook's secret: %v", id, err)
	}
	if k := v.key(id, "a webhook's secret"); k != nil && !signsWebhooks(k) {
		v.problem("key %s: there is a webhook's secret that it has no use for", id)
	}
}
