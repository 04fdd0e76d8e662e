package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"latchkey/apikey"
)

// idempotencyField is the header field by which a caller makes a call that may
// be repeated (draft-ietf-httpapi-idempotency-key-header).
const idempotencyField = "Idempotency-Key"

const maxIdempotencyKey = 255

// A keeper notes the answer that a call is to get, and returns the receipt to
// write with what the call changes; nil if none is to be kept.
type keeper func(status int, body any) *apikey.Receipt

// once runs a call that makes a key and sends the answer it gave to its keeper.
// A call that was answered before gets the same answer, and does not run: the
// answer is written with the key, in one batch, so there is never one without
// the other.
func (s *KeyService) once(c *Call, run func(keeper) error) error {
	name, fingerprint, err := c.idempotency()
	if err != nil {
		return err
	}
	if name != nil {
		if done, err := s.replay(c, *name, fingerprint); done || err != nil {
			return err
		}
	}
	var status int
	var body []byte
	err = run(func(code int, answer any) *apikey.Receipt {
		status, body = code, encode(answer)
		if name == nil {
			return nil
		}
		return &apikey.Receipt{Name: *name, Call: fingerprint, Until: apikey.Instant(c.Now.Add(apikey.ReceiptLife)),
			Status: status, Answer: apikey.Secret(body)}
	})
	if err != nil && name != nil {
		// Perhaps by the same call, which overtook this one: so it was answered, or left
		// nothing to do, such as a key that is replaced already.
		done, again := s.replay(c, *name, fingerprint)
		if done || again != nil && errors.Is(err, apikey.ErrAnswered) {
			return again
		}
	}
	if err != nil {
		return err
	}
	writeBytes(c.RequestCtx, status, body)
	return nil
}

// replay answers the call as it was answered before, if it was.
func (s *KeyService) replay(c *Call, name apikey.ReceiptName, fingerprint apikey.Digest) (done bool, err error) {
	r, err := s.Receipts.Receipt(name)
	switch {
	case errors.Is(err, apikey.ErrNotFound) || err == nil && r.Over(c.Now):
		return false, nil
	case err != nil:
		return false, err
	case r.Call != fingerprint:
		e := Invalid(idempotencyField, "was used for another call within the last 24 hours; use a new one for each call")
		e.Status = 409
		return false, e
	}
	c.Response.Header.Set("Idempotent-Replayed", "true")
	writeBytes(c.RequestCtx, r.Status, []byte(r.Answer))
	return true, nil
}

// idempotency returns the name of the call's receipt, nil if it asks for none,
// and a digest of all that the call asks for.
func (c *Call) idempotency() (*apikey.ReceiptName, apikey.Digest, error) {
	values := c.Request.Header.PeekAll(idempotencyField)
	if len(values) == 0 {
		return nil, apikey.Digest{}, nil
	}
	key := string(values[0])
	if len(values) > 1 || !visible(key) || len(key) > maxIdempotencyKey {
		return nil, apikey.Digest{}, BadRequest(idempotencyField, "must be one value of 1 to 255 visible ASCII characters")
	}
	name := apikey.NameReceipt(c.Operator.Name, c.Operator.Tenant, key)
	h := sha256.New()
	for _, part := range [][]byte{c.Method(), c.RequestURI(), c.Request.Header.Peek(tenantField), c.body} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return &name, apikey.Digest(h.Sum(nil)), nil
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}
