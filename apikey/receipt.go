package apikey

import (
	"crypto/sha256"
	"time"
)

// ReceiptLife is how long the answer to a call with an Idempotency-Key is kept.
const ReceiptLife = 24 * time.Hour

// A Receipt is what is kept of a call that made a key, so that the same call
// made again gets the same answer and makes no second one. The answer holds a
// secret: the store seals it, and erases it when its time is over.
type Receipt struct {
	Name   ReceiptName
	Call   Digest    // of all that the call asked for
	Until  time.Time // when it is forgotten
	Status int       // of the answer
	Answer Secret
}

// A ReceiptName says which call a receipt is of: who made it, for which tenant
// they act, and under which Idempotency-Key.
type ReceiptName [16]byte

// NameReceipt returns the name of an operator's call. One and the same operator
// may act for one tenant now and for another then: an identity provider says so in
// each token.
func NameReceipt(operator, tenant, idempotencyKey string) ReceiptName {
	sum := sha256.Sum256([]byte(operator + "\x00" + tenant + "\x00" + idempotencyKey))
	return ReceiptName(sum[:])
}

// Over reports whether the receipt is to be forgotten.
func (r *Receipt) Over(now time.Time) bool { return !now.Before(r.Until) }
