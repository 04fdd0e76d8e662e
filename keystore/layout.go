package keystore

import (
	"encoding/binary"
	"time"

	"latchkey/apikey"
)

// The families of rows. A family is the first byte of a row's key; numbers in
// keys are big-endian, so that their order is the order of the bytes.
//
//	r <id>                        digest, fields   the record
//	d <digest>                    id, fields       the same record, for the data plane: one Get
//	l <tenant> 0 <state> <id>     -                lists, in order of creation
//	c <tenant> 0 <state>          count            how many rows the list has
//	t <kind> <time> <id>          -                what falls due when
//	a <revision> <ordinal>        event            the audit log
//	k <id> <revision>             -                the audit log of one key
//	m <tenant> 0 <revision>       -                the audit log of one tenant
//	s <id>                        key pair         signing keys
//	u <id>                        fields           last uses
//	i <name>                      fields           receipts of calls that made keys; the answer is sealed
//	o <id>                        fields           scheduled rotations under way; the secret is sealed
//	w <id>                        sealed secret    what a key's webhook is signed with
//	x <row key>                   value            rows of an import that is all or nothing, until it is over
//
// The record is written twice because both readers need it whole and neither
// can afford a second look-up: the data plane on a cache miss, and a page of a
// list, whose records lie side by side in order of creation. One batch writes
// both, so they never differ.
const (
	familyRecord      = 'r'
	familyDigest      = 'd'
	familyList        = 'l'
	familyCount       = 'c'
	familyDue         = 't'
	familyAudit       = 'a'
	familyKeyAudit    = 'k'
	familyTenantAudit = 'm'
	familySigning     = 's'
	familyUse         = 'u'
	familyReceipt     = 'i'
	familyOutbox      = 'o'
	familyWebhook     = 'w'
	familyStaged      = 'x'
)

// The states of a list.
const (
	stateLive  = '+'
	stateEnded = '-'
)

// A DueKind says what falls due.
type DueKind byte

// The kinds of due times.
const (
	DueEnd      DueKind = 'x' // the key expires or its grace ends
	DueRotation DueKind = 'r' // its scheduled rotation
	DueDelivery DueKind = 'd' // the next try to deliver its replacement
	DueReceipt  DueKind = 'i' // a receipt is over; the ID is its name
)

func recordKey(id apikey.ID) []byte { return append([]byte{familyRecord}, id[:]...) }

func appendDigestKey(b []byte, d *apikey.Digest) []byte {
	return append(append(b, familyDigest), d[:]...)
}

func useKey(id apikey.ID) []byte { return append([]byte{familyUse}, id[:]...) }

func outboxKey(id apikey.ID) []byte { return append([]byte{familyOutbox}, id[:]...) }

func webhookKey(id apikey.ID) []byte { return append([]byte{familyWebhook}, id[:]...) }

func receiptKey(name apikey.ReceiptName) []byte { return append([]byte{familyReceipt}, name[:]...) }

func stateOf(live bool) byte {
	if live {
		return stateLive
	}
	return stateEnded
}

// listPrefix begins the rows of one list. Tenants are visible ASCII, so the
// zero byte ends them unmistakably.
func listPrefix(family byte, tenant string, state byte) []byte {
	return append(append(append([]byte{family}, tenant...), 0), state)
}

func listKey(k *apikey.Key) []byte {
	return append(listPrefix(familyList, k.Tenant, stateOf(k.Live())), k.ID[:]...)
}

func dueKey(kind DueKind, at time.Time, id apikey.ID) []byte {
	b := binary.BigEndian.AppendUint64([]byte{familyDue, byte(kind)}, uint64(at.UnixMicro()))
	return append(b, id[:]...)
}

func auditKey(revision uint64, ordinal uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte{familyAudit}, revision), ordinal)
}

func keyAuditKey(id apikey.ID, revision uint64, ordinal uint32) []byte {
	return append(append([]byte{familyKeyAudit}, id[:]...), auditKey(revision, ordinal)[1:]...)
}

func tenantAuditKey(tenant string, revision uint64, ordinal uint32) []byte {
	return append(append(append([]byte{familyTenantAudit}, tenant...), 0), auditKey(revision, ordinal)[1:]...)
}

// after returns the first key that sorts after every key with the prefix. A
// prefix begins with a family, so one of its bytes can always be raised.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}
