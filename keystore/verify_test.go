package keystore

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// verifyAt verifies the store on a disk and returns what is off.
func verifyAt(t testing.TB, disk vfs.FS) (Summary, []string) {
	t.Helper()
	var problems []string
	s, err := Verify(storeAt, Options{FS: disk}, func(p string) { problems = append(problems, p) })
	if err != nil {
		t.Fatal(err)
	}
	if s.Problems != len(problems) {
		t.Errorf("%d problems are counted, %d reported", s.Problems, len(problems))
	}
	return s, problems
}

// everyKind is a store that has rows of every family but that of imports: key 1
// is live and its rotation pending, key 2 was revoked, key 3 is another tenant's
// and ends.
func everyKind(t testing.TB, disk vfs.FS) (s *Store, pending apikey.Key) {
	t.Helper()
	s, err := Open(storeAt, Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	c := scheduled(t)
	c.Receipt = &apikey.Receipt{Name: apikey.ReceiptName{1, 2, 3, 4}, Until: epoch.Add(time.Hour), Status: 201, Answer: "answer canary"}
	if err := s.Create(ops, c); err != nil {
		t.Fatal(err)
	}
	pending = mustChange(t, s, c.Keys[0], func(k apikey.Key) (apikey.Change, error) {
		return k.BeginRotation(apikey.Credentials{ID: testKey("acme", 9).ID, Secret: "pending canary"}, k.Rotation.NextAt)
	}).Keys[0]
	ends := testKey("globex", 3)
	ends.ExpiresAt = epoch.Add(time.Hour)
	mustCreate(t, s, testKey("acme", 2), ends)
	mustChange(t, s, testKey("acme", 2), revokeAt(epoch.Add(time.Minute)))
	if err := s.AddSigningKey(ops, apikey.NewSigningKey("sig", [32]byte{7}, epoch)); err != nil {
		t.Fatal(err)
	}
	if err := s.PutUses([]apikey.Use{{Key: pending.ID, At: epoch}}); err != nil {
		t.Fatal(err)
	}
	return s, pending
}

func TestVerifyFindsASoundStoreSound(t *testing.T) {
	disk := vfs.NewMem()
	s, _ := everyKind(t, disk)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, problems := verifyAt(t, disk)
	if problems != nil {
		t.Errorf("problems of a sound store: %v", problems)
	}
	want := map[byte]int{familyRecord: 3, familyDigest: 3, familyList: 3, familyCount: 3, familyDue: 3, familyAudit: 6, familyKeyAudit: 5,
		familyTenantAudit: 5, familySigning: 1, familyUse: 1, familyReceipt: 1, familyOutbox: 1, familyWebhook: 1, familyStaged: 0}
	for _, f := range got.Families {
		if f.Rows != want[f.Family] {
			t.Errorf("%s: %d rows, want %d", f.Name, f.Rows, want[f.Family])
		}
		delete(want, f.Family)
	}
	if len(want) > 0 || got.Keys() != 3 || got.Revision != 5 {
		t.Errorf("summary %+v, without the families %v", got, want)
	}
}

// TestVerifyNamesWhatIsOff breaks each kind of row.
func TestVerifyNamesWhatIsOff(t *testing.T) {
	one, two, three, nine := testKey("acme", 1), testKey("acme", 2), testKey("globex", 3), testKey("acme", 9)
	const damaged = "row is damaged or was written by a newer version"
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	receipt := apikey.ReceiptName{1, 2, 3, 4}
	pendingDue := dueKey(DueDelivery, epoch.AddDate(0, 0, 1), one.ID)
	for _, tc := range []struct {
		name   string
		row    []byte
		damage func(old []byte) []byte // nil deletes the row
		want   []string
	}{
		{"a record cut short", recordKey(two.ID), cut, []string{"decode key " + two.ID.String() + ": " + damaged}},
		{"a record shorter than its digest", recordKey(two.ID), func([]byte) []byte { return []byte("x") }, []string{"records: a row is damaged"}},
		{"a record that is gone", recordKey(two.ID), nil, []string{
			"key " + two.ID.String() + ": there is a record by digest and no record",
			"key " + two.ID.String() + ": there is a row of a list and no record",
			"audit event 3.0: its key " + two.ID.String() + " has no record",
			"audit event 4.0: its key " + two.ID.String() + " has no record"}},
		{"a record of a key never issued", recordKey(nine.ID), func([]byte) []byte { return append(nine.Digest[:], appendKey(nil, &nine)...) }, []string{
			"key " + nine.ID.String() + ": its record by digest is missing",
			"key " + nine.ID.String() + `: it is missing in the list of live keys of tenant "acme"`,
			"key " + nine.ID.String() + ": the audit log has nothing about it"}},
		{"a record by digest that is gone", appendDigestKey(nil, &two.Digest), nil, []string{"key " + two.ID.String() + ": its record by digest is missing"}},
		{"a record by digest that revives the key", appendDigestKey(nil, &two.Digest),
			func([]byte) []byte { return append(two.ID[:], appendKey(nil, &two)...) }, []string{"key " + two.ID.String() + ": its record by digest differs from its record"}},
		{"a record by digest cut short", appendDigestKey(nil, &two.Digest), cut, []string{
			"key " + two.ID.String() + ": its record by digest differs from its record",
			"record by digest: decode key " + two.ID.String() + ": " + damaged}},
		{"a record by digest without an ID", appendDigestKey(nil, &two.Digest), func([]byte) []byte { return nil }, []string{
			"key " + two.ID.String() + ": its record by digest differs from its record", "records by digest: a row is damaged"}},
		{"a second digest of a key", appendDigestKey(nil, &nine.Digest), func([]byte) []byte { return append(three.ID[:], appendKey(nil, &three)...) },
			[]string{"key " + three.ID.String() + ": there is a record of it by a digest that is not its own"}},
		{"a list without its key", listKey(&one), nil, []string{
			"key " + one.ID.String() + `: it is missing in the list of live keys of tenant "acme"`,
			`tenant "acme": the total of live keys says 1, a recount gives 0`}},
		{"a list with a key of the other state", listKey(&two), func([]byte) []byte { return nil }, []string{
			"key " + two.ID.String() + ": it is in a list that its record does not belong to",
			`tenant "acme": the total of live keys says 1, a recount gives 2`}},
		{"a list with a key that is not there", listKey(&nine), func([]byte) []byte { return nil }, []string{
			"key " + nine.ID.String() + ": there is a row of a list and no record",
			`tenant "acme": the total of live keys says 1, a recount gives 2`}},
		{"a row of a list with a value", listKey(&one), func([]byte) []byte { return []byte("x") }, []string{"lists: a row is damaged"}},
		{"a total that is off", listPrefix(familyCount, "acme", stateEnded), func([]byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, 7} },
			[]string{`tenant "acme": the total of ended keys says 7, a recount gives 1`}},
		{"a total that is gone", listPrefix(familyCount, "globex", stateLive), nil, []string{`tenant "globex": the total of live keys says 0, a recount gives 1`}},
		{"a total of a list that is empty", listPrefix(familyCount, "initech", stateLive), func([]byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, 7} },
			[]string{`tenant "initech": the total of live keys says 7, a recount gives 0`}},
		{"a total of the wrong length", listPrefix(familyCount, "acme", stateLive), cut, []string{`tenant "acme": total of live keys: decode count: ` + damaged}},
		{"a total of no list", []byte{familyCount, 'x'}, func([]byte) []byte { return nil }, []string{"totals: a row is damaged"}},
		{"an end that nothing waits for", dueKey(DueEnd, epoch.Add(time.Hour), three.ID), nil, []string{"key " + three.ID.String() + ": the row for when it ends is missing"}},
		{"an end at another time", dueKey(DueEnd, epoch.Add(2*time.Hour), three.ID), func([]byte) []byte { return nil },
			[]string{"key " + three.ID.String() + ": there is a row for when it ends that does not follow from its record"}},
		{"a rotation of a key that has none", dueKey(DueRotation, epoch, three.ID), func([]byte) []byte { return nil },
			[]string{"key " + three.ID.String() + ": there is a row for when its rotation is due that does not follow from its record"}},
		{"a due time of no key", dueKey(DueEnd, epoch, nine.ID), func([]byte) []byte { return nil }, []string{"key " + nine.ID.String() + ": there is a due time and no record"}},
		{"a due time of no known kind", dueKey('?', epoch, three.ID), func([]byte) []byte { return nil }, []string{"due times: a row is of no known kind"}},
		{"a delivery that nothing waits for", pendingDue, nil, []string{"key " + one.ID.String() + ": the row for when its delivery is due is missing"}},
		{"a due time of no delivery", dueKey(DueDelivery, epoch, three.ID), func([]byte) []byte { return nil },
			[]string{"key " + three.ID.String() + ": there is a row for when its delivery is due that does not follow from its record"}},
		{"a pending rotation without a delivery", outboxKey(one.ID), nil, []string{
			"key " + one.ID.String() + ": its rotation is pending and has no delivery",
			"key " + one.ID.String() + ": there is a row for when its delivery is due that does not follow from its record"}},
		{"a delivery of another rotation", outboxKey(one.ID), func(old []byte) []byte { return bytes.Replace(old, nine.ID[:], two.ID[:], 1) },
			[]string{"key " + one.ID.String() + ": there is a delivery of a rotation that is not pending"}},
		{"a delivery that cannot be opened", outboxKey(one.ID), func(old []byte) []byte { old[30] ^= 1; return old },
			[]string{"key " + one.ID.String() + ": its delivery: " + damaged}},
		{"a webhook without a secret", webhookKey(one.ID), nil, []string{"key " + one.ID.String() + ": its webhook has no secret"}},
		{"a webhook's secret that cannot be opened", webhookKey(one.ID), cut, []string{"key " + one.ID.String() + ": its webhook's secret: " + damaged}},
		{"an audit event that is gone", auditKey(4, 0), nil, []string{
			"audit event 4.0: it is in the log of key " + two.ID.String() + " and is not there",
			"audit event 4.0: it is in the log of a tenant and is not there"}},
		{"an audit event that is gone from a change of two", auditKey(3, 0), nil, []string{
			"audit event 3.1: one before it of the same change is not there",
			"audit event 3.0: it is in the log of key " + two.ID.String() + " and is not there",
			"audit event 3.0: it is in the log of a tenant and is not there"}},
		{"an audit event cut short", auditKey(4, 0), cut, []string{"decode audit event 4: " + damaged}},
		{"an audit event at half a place", []byte{familyAudit, 1}, func([]byte) []byte { return nil }, []string{"audit log: a row is damaged"}},
		{"an audit event that its key's log lacks", keyAuditKey(two.ID, 4, 0), nil, []string{
			"key " + two.ID.String() + ": it was revoked, and the audit log does not say so",
			"audit event 4.0: it is missing in the log of key " + two.ID.String()}},
		{"an audit event in another key's log", keyAuditKey(one.ID, 4, 0), func([]byte) []byte { return nil },
			[]string{"audit event 4.0: it is in the log of key " + one.ID.String() + " and is about another"}},
		{"an audit event that its tenant's log lacks", tenantAuditKey("acme", 4, 0), nil, []string{`audit event 4.0: it is missing in the log of tenant "acme"`}},
		{"an audit event in another tenant's log", tenantAuditKey("globex", 4, 0), func([]byte) []byte { return nil },
			[]string{"audit event 4.0: it is in the log of a tenant and is about another"}},
		{"a signing key that nobody added", signingKey("kid"), func([]byte) []byte {
			k := apikey.NewSigningKey("kid", [32]byte{1}, epoch).Retire(epoch)
			return appendSigningKey(nil, &k, nil)
		}, []string{`signing key "kid": the audit log has nothing about it`}},
		{"a signing key that is gone", signingKey("sig"), nil, []string{`signing key "sig": the audit log has it added, and it is not there`}},
		{"a signing key that was withdrawn", auditKey(5, 0), func([]byte) []byte {
			return appendEvent(nil, &apikey.Event{Origin: ops, Action: apikey.ActionSigningKeyWithdrawn, Tenant: apikey.AnyTenant, SigningKey: "sig"})
		}, []string{`audit event 5.0: signing key "sig" was not there to withdraw`, `signing key "sig": the audit log has it withdrawn, and it is there`}},
		{"a signing key that was added twice", auditKey(9, 0), func([]byte) []byte {
			return appendEvent(nil, &apikey.Event{Origin: ops, Action: apikey.ActionSigningKeyAdded, Tenant: apikey.AnyTenant, SigningKey: "sig"})
		}, []string{`audit event 9.0: signing key "sig" was added before`}},
		{"an audit event of a signing key that is gone", auditKey(5, 0), nil, []string{`signing key "sig": the audit log has nothing about it`}},
		{"an audit event of a signing key cut short", auditKey(5, 0), cut, []string{"decode audit event 5: " + damaged, `signing key "sig": the audit log has nothing about it`}},
		{"a signing key cut short", signingKey("sig"), cut, []string{`decode signing key "sig": ` + damaged}},
		{"a last use cut short", useKey(one.ID), cut, []string{"key " + one.ID.String() + ": its last use: " + damaged}},
		{"a last use of no key", useKey(nine.ID), func([]byte) []byte { return appendUse(nil, &apikey.Use{At: epoch}) },
			[]string{"key " + nine.ID.String() + ": there is a last use and no record"}},
		{"a receipt that cannot be opened", receiptKey(receipt), cut, []string{"receipt 01020304: " + damaged}},
		{"a receipt that nothing erases", dueKey(DueReceipt, epoch.Add(time.Hour), apikey.ID(receipt)), nil,
			[]string{"receipt 01020304: the row for when it is over is missing"}},
		{"a receipt that is gone", receiptKey(receipt), nil, []string{"receipt 01020304: there is a time when it is over that is not its own"}},
		{"a row without a key", []byte{}, func([]byte) []byte { return nil }, []string{`a row belongs to no family: its key begins with ""`}},
		{"a row of no family", []byte("zebra"), func([]byte) []byte { return nil }, []string{`a row belongs to no family: its key begins with "z"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := vfs.NewMem()
			s, _ := everyKind(t, disk)
			if tc.damage == nil {
				if err := absent(s.db, tc.row); err == nil {
					t.Fatal("there is no such row to delete")
				}
				if err := s.db.Delete(tc.row, pebble.Sync); err != nil {
					t.Fatal(err)
				}
			} else {
				var old []byte
				if row, err := get(s.db, tc.row); err == nil {
					old = bytes.Clone(row.value)
					row.close()
				}
				if err := s.db.Set(tc.row, tc.damage(old), pebble.Sync); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			_, problems := verifyAt(t, disk)
			if diff := cmp.Diff(tc.want, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestVerifyHoldsKeysToTheirHistory makes the audit log or a record say something
// else in all of its rows.
func TestVerifyHoldsKeysToTheirHistory(t *testing.T) {
	two, three := testKey("acme", 2), testKey("globex", 3)
	drop := func(k apikey.Key, revision uint64, ordinal uint32) func(*Store, *pebble.Batch) {
		return func(_ *Store, b *pebble.Batch) {
			for _, row := range [][]byte{auditKey(revision, ordinal), keyAuditKey(k.ID, revision, ordinal), tenantAuditKey(k.Tenant, revision, ordinal)} {
				_ = b.Delete(row, nil)
			}
		}
	}
	// change rewrites a key as a change without an event would.
	change := func(k apikey.Key, edit func(*apikey.Key)) func(*Store, *pebble.Batch) {
		return func(s *Store, b *pebble.Batch) {
			before, err := s.ByID(apikey.AnyTenant, k.ID)
			if err != nil {
				t.Fatal(err)
			}
			now, w := before, s.writerTo(b)
			edit(&now)
			w.put(&before, &now)
			if err := errors.Join(w.putCounts(), w.err); err != nil {
				t.Fatal(err)
			}
		}
	}
	// tell adds an event to a key's log.
	tell := func(k apikey.Key, action apikey.Action) func(*Store, *pebble.Batch) {
		return func(s *Store, b *pebble.Batch) {
			w := s.writerTo(b)
			w.revision = s.revision + 1
			w.audit(ops, action, 0, &k, &k)
		}
	}
	for _, tc := range []struct {
		name   string
		damage func(*Store, *pebble.Batch)
		want   []string
	}{
		{"no revocation of a key that is revoked", drop(two, 4, 0), []string{"key " + two.ID.String() + ": it was revoked, and the audit log does not say so"}},
		{"no creation", drop(two, 3, 0), []string{
			"key " + two.ID.String() + ": the audit log does not begin with its creation",
			"audit event 3.1: one before it of the same change is not there"}},
		{"nothing", drop(three, 3, 1), []string{"key " + three.ID.String() + ": the audit log has nothing about it"}},
		{"two revocations", tell(two, apikey.ActionRevoked), []string{"key " + two.ID.String() + ": the audit log has it revoked 2 times"}},
		{"a revocation that was undone", change(two, func(k *apikey.Key) { k.RevokedAt = time.Time{} }),
			[]string{"key " + two.ID.String() + ": the audit log has it revoked, and it is not"}},
		{"an end that was undone", tell(three, apikey.ActionEnded), []string{"key " + three.ID.String() + ": the audit log has it ended, and it is not"}},
		{"no end of a key that is over", change(three, func(k *apikey.Key) { k.EndedAt = epoch }),
			[]string{"key " + three.ID.String() + ": it was ended, and the audit log does not say so"}},
		{"no rotation of a key that was replaced", change(three, func(k *apikey.Key) { k.Rotation.ReplacedBy = two.ID }),
			[]string{"key " + three.ID.String() + ": it was rotated, and the audit log does not say so"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := vfs.NewMem()
			s, _ := everyKind(t, disk)
			b := s.db.NewBatch()
			tc.damage(s, b)
			if err := errors.Join(b.Commit(pebble.Sync), s.Close()); err != nil {
				t.Fatal(err)
			}
			_, problems := verifyAt(t, disk)
			if diff := cmp.Diff(tc.want, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerifyNeedsTheSealingKey(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(vfs.FS, string) error
	}{
		{"that is gone", func(disk vfs.FS, name string) error { return disk.Remove(name) }},
		{"that is none", func(disk vfs.FS, name string) error { return writeFile(storeAt, sealFile, "not a key\n", disk) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := vfs.NewMem()
			s, _ := everyKind(t, disk)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(disk, disk.PathJoin(storeAt, sealFile)); err != nil {
				t.Fatal(err)
			}
			if _, problems := verifyAt(t, disk); !slices.Equal(problems, []string{errSealKey.Error()}) {
				t.Errorf("problems: %q, want %q", problems, errSealKey)
			}
		})
	}
	// Another store's sealing key opens nothing.
	disk := vfs.NewMem()
	s, _ := everyKind(t, disk)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(storeAt, sealFile, strings.Repeat("ab", 32)+"\n", disk); err != nil {
		t.Fatal(err)
	}
	if _, problems := verifyAt(t, disk); len(problems) != 4 {
		t.Errorf("with another sealing key: %q, want the signing key, the receipt, the delivery and the webhook's secret", problems)
	}
}

// TestVerifyFindsFlippedBits damages a table at a time, at places that no row
// needs to be read from too.
func TestVerifyFindsFlippedBits(t *testing.T) {
	disk := vfs.NewMem()
	s, err := Open(storeAt, Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, manyKeys("acme", 0, 2000)...)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound, problems := verifyAt(t, disk)
	if sound.Tables == 0 || sound.Keys() != 2000 || problems != nil {
		t.Fatalf("before: %+v, %v", sound, problems)
	}
	files, err := disk.List(disk.PathJoin(storeAt, databaseAt))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(files, func(name string) bool { return path.Ext(name) == ".sst" })
	table := disk.PathJoin(storeAt, databaseAt, files[i])
	text := readAll(t, disk, table)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		at := rng.IntN(len(text) - 100) // the footer is what Open reads; a wrong one is an error
		damaged := bytes.Clone(text)
		damaged[at] ^= 1 << rng.IntN(8)
		writeAll(t, disk, table, damaged)
		_, err := Verify(storeAt, Options{FS: disk}, func(p string) { problems = append(problems, p) })
		if err != nil || len(problems) != 2 || !strings.HasPrefix(problems[0], "table "+files[i]+": ") {
			t.Errorf("byte %d of %d changed: %q, %v; want the table %s named", at, len(text), problems, err, files[i])
		}
		problems = nil
	}
	writeAll(t, disk, table, text)
	if _, problems := verifyAt(t, disk); problems != nil {
		t.Errorf("afterwards: %v", problems)
	}
}

func readAll(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func writeAll(t *testing.T, fsys vfs.FS, name string, text []byte) {
	t.Helper()
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Run("a store that is open", func(t *testing.T) {
		disk := vfs.NewMem()
		openStore(t, disk)
		if _, err := Verify(storeAt, Options{FS: disk}, nil); err == nil || err.Error() != "key store store: "+ErrLocked.Error() {
			t.Errorf("Verify() = %v", err)
		}
	})
	t.Run("a directory without a store, and makes none", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := Verify(dir, Options{}, nil); err == nil || !strings.Contains(err.Error(), errNoStore.Error()) {
			t.Errorf("Verify() = %v", err)
		}
		if files := contents(t, dir); len(files) != 0 {
			t.Errorf("it made %v", files)
		}
	})
}

func TestVerifyWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, manyKeys("acme", 0, 10)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	for range 2 {
		if s, err := Verify(dir, Options{}, func(p string) { t.Error(p) }); err != nil || s.Keys() != 10 {
			t.Errorf("Verify() = %+v, %v", s, err)
		}
	}
	after := contents(t, dir)
	for name := range after {
		if strings.HasSuffix(name, "/LOCK") {
			delete(before, name) // taking the lock sets its time
			delete(after, name)
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("Verify wrote (-before +after):\n%s", diff)
	}
}
