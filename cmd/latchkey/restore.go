package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"latchkey/admin"
	"latchkey/admin/jwt"
	"latchkey/apikey"
	"latchkey/keystore"
)

func restoreCommand() *cobra.Command {
	var from, to, audit string
	c := &cobra.Command{
		Use:   "restore --from {DIR | ARCHIVE} --to STOREDIR [--audit FILE]",
		Short: "Make a key store of a backup",
		Long: "Check a backup as verify does and put it where a key store is to be, whole or not at all.\n" +
			"With the audit log since the backup, as GET /audit gives it, keys that were revoked since are\n" +
			"revoked in the new store too, and the keys that sign tokens replaced and withdrawn.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if from == "" || to == "" {
				return usageError{errors.New("name the backup with --from and the store's directory with --to")}
			}
			return restore(from, to, audit, time.Now(), c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&from, "from", "", "the backup: a `path` that backup --to or --archive made (required)")
	c.Flags().StringVar(&to, "to", "", "the store's `directory`, empty or missing (required)")
	c.Flags().StringVar(&audit, "audit", "", "a `file` with events of the audit log, as GET /audit gives them")
	return c
}

// restore makes a store of a backup and says what it is and what it cannot be.
func restore(from, to, audit string, now time.Time, out io.Writer) error {
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; name an empty or missing directory", to)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	syscall.Umask(0o077) // whatever the store writes is for this user alone
	var m keystore.Manifest
	var r replay
	err := placeDir(to, func(temp string) (err error) {
		if m, err = readBackup(from, temp); err != nil {
			return err
		}
		found, err := inspect(temp, out)
		if err != nil {
			return fmt.Errorf("%s cannot be restored: %w", from, err)
		}
		if err := m.Agrees(found); err != nil {
			return err
		}
		r.signing = found.SigningKeys() > 0
		if err := keystore.ForgetBackup(temp); err != nil {
			return err
		}
		if audit == "" {
			return nil
		}
		r.backup = m.Revision
		return r.run(temp, audit, now)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: restored from %s, made at %s, %s ago, by latchkey %s; keys: %d, revision: %d\n", to, from,
		m.MadeAt.Format(time.RFC3339), now.Sub(m.MadeAt).Round(time.Second), m.Version, m.Keys, m.Revision)
	return r.report(audit, out)
}

// readBackup copies a backup of either kind.
func readBackup(from, dir string) (m keystore.Manifest, err error) {
	info, err := os.Stat(from)
	if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", from, err)
		}
	}()
	if info.IsDir() {
		return keystore.ReadBackup(from, dir)
	}
	f, err := os.Open(from)
	if err != nil {
		return m, err
	}
	defer f.Close()
	return keystore.ReadArchive(f, dir)
}

// A replay is what an audit log says happened since a backup, and what came of it.
type replay struct {
	backup         uint64             // its revision
	signing        bool               // it has keys that sign tokens
	told           map[apikey.ID]bool // keys whose revocation the log has, as far as it was read
	revoked        int                // keys that this restore revoked
	before, absent int                // revocations that the backup has, and those of keys that it lacks

	revisions []uint64 // since the backup that the log has, in its order
	last      time.Time
	since     map[apikey.Action]int // events of a later revision

	withdrawn []string // signing keys that the log has as withdrawn
	resigned  bool     // the key that signs is one of this restore
	unsigned  int      // signing keys that this restore withdrew
}

// run revokes in the store at the path what the log has as revoked: of whatever
// revision, since a revocation too many cannot be in the log.
func (r *replay) run(path, audit string, now time.Time) (err error) {
	f, err := os.Open(audit)
	if err != nil {
		return fmt.Errorf("--audit: %w", err)
	}
	defer f.Close()
	s, err := keystore.Open(path, keystore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r.since, r.told = map[apikey.Action]int{}, map[apikey.ID]bool{}
	err = admin.ReadAudit(f, func(e apikey.Event) error {
		if e.Revision > r.backup {
			r.since[e.Action]++
			if n := len(r.revisions); n == 0 || r.revisions[n-1] != e.Revision {
				r.revisions = append(r.revisions, e.Revision)
			}
			if e.At.After(r.last) {
				r.last = e.At
			}
		}
		if e.Action == apikey.ActionSigningKeyWithdrawn {
			r.withdrawn = append(r.withdrawn, e.SigningKey)
		}
		if e.Action != apikey.ActionRevoked {
			return nil
		}
		if r.told[e.Key] {
			return nil // pages of the log can overlap
		}
		r.told[e.Key] = true
		by := apikey.Origin{At: apikey.Instant(now), Actor: "restore", RequestID: e.RequestID}
		_, err := s.Change(by, apikey.AnyTenant, e.Key, func(k apikey.Key) (apikey.Change, error) { return k.Revoke(e.At) })
		switch {
		case err == nil:
			r.revoked++
		case errors.Is(err, apikey.ErrNotLive):
			r.before++
		case errors.Is(err, apikey.ErrNotFound):
			r.absent++
		default:
			return err
		}
		return nil
	})
	if err == nil && r.signing {
		err = r.signers(s, apikey.Origin{At: apikey.Instant(now), Actor: "restore"})
	}
	if err != nil {
		return fmt.Errorf("--audit %s: %w; nothing was restored", filepath.Base(audit), err)
	}
	return nil
}

// signers has a new key sign tokens where the log has the one of the backup replaced, and
// withdraws what the log has as withdrawn.
func (r *replay) signers(s *keystore.Store, by apikey.Origin) error {
	signer, err := jwt.NewSigner(s, by)
	if err == nil && r.since[apikey.ActionSigningKeyAdded] > 0 {
		r.resigned = true
		err = signer.Rotate(by)
	}
	for _, id := range r.withdrawn {
		if err != nil {
			return err
		}
		err = signer.Withdraw(by, id)
		if errors.Is(err, apikey.ErrSigns) { // the log lacks what replaced it
			r.resigned = true
			err = errors.Join(signer.Rotate(by), signer.Withdraw(by, id))
		}
		switch {
		case err == nil:
			r.unsigned++
		case errors.Is(err, apikey.ErrNotFound):
			err = nil
		}
	}
	return err
}

// missing names the revisions between those of the backup and the newest of the log that
// the log lacks, the first ones where there are many; "" if there are none.
func (r *replay) missing() string {
	slices.Sort(r.revisions)
	var gaps []string
	for at := r.backup; len(r.revisions) > 0; r.revisions = r.revisions[1:] {
		next := r.revisions[0]
		switch {
		case next > at+2:
			gaps = append(gaps, fmt.Sprintf("%d to %d", at+1, next-1))
		case next == at+2:
			gaps = append(gaps, fmt.Sprint(at+1))
		}
		at = next
	}
	const most = 10
	if len(gaps) > most {
		gaps = append(gaps[:most], fmt.Sprintf("%d more places", len(gaps)-most))
	}
	return strings.Join(gaps, ", ")
}

// report says what was replayed, and what nobody can know from a backup.
func (r *replay) report(audit string, out io.Writer) error {
	switch {
	case !r.signing:
	case audit == "":
		fmt.Fprintln(out, "the key that signs tokens is the one of the backup: if it was rotated since, rotate it, and withdraw again what was withdrawn")
	case r.resigned:
		fmt.Fprintf(out, "the key that signs tokens is a new one, since the log has the one of the backup replaced; withdrawn again: %d\n", r.unsigned)
	default:
		fmt.Fprintf(out, "the key that signs tokens is the one of the backup, and the log has no rotation of it; withdrawn again: %d\n", r.unsigned)
	}
	if audit == "" {
		fmt.Fprintln(out, "no audit log was given: keys that were revoked after the backup are admitted again")
	} else {
		fmt.Fprintf(out, "revoked again by the audit log: %d; revoked in the backup already: %d; of keys that the backup does not have: %d\n",
			r.revoked, r.before, r.absent)
		if !r.last.IsZero() {
			fmt.Fprintf(out, "the newest event of the log is of %s; keys that were revoked later are admitted again\n", r.last.Format(time.RFC3339Nano))
		} else {
			fmt.Fprintln(out, "the log has nothing that is newer than the backup; keys that were revoked since are admitted again")
		}
		if missing := r.missing(); missing != "" {
			fmt.Fprintf(out, "of what came after the backup the log has nothing of revision %s: revocations in there are not known, if there were any\n", missing)
		}
	}
	lost := ""
	if audit != "" {
		rotated := r.since[apikey.ActionRotated] // each of which issued one
		lost = fmt.Sprintf("; the log has %d issued, %d changed, %d rotated", max(0, r.since[apikey.ActionCreated]-rotated), r.since[apikey.ActionUpdated], rotated)
	}
	_, err := fmt.Fprintf(out, "keys that were issued after the backup are gone; those changed or rotated are as they were, and what was rotated away is admitted%s\n", lost)
	return err
}
