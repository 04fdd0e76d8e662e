package jobs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"latchkey/apikey"
)

// Ends finds and changes keys that are past their end.
type Ends interface {
	DueEnds(now time.Time, limit int) ([]apikey.ID, error)
	Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error)
}

// sweepBatch is how many keys a sweep reads at a time.
const sweepBatch = 256

// Sweep returns the job that records which keys have expired or outlived their
// grace, so that lists and totals show it. Admission does not wait for it.
func Sweep(keys Ends) Job {
	return Job{Name: "sweep", Every: time.Second, Pass: func(ctx context.Context, now time.Time) error {
		for ctx.Err() == nil {
			ids, err := keys.DueEnds(now, sweepBatch)
			if err != nil {
				return fmt.Errorf("find ended keys: %w", err)
			}
			var errs []error // a key that cannot be swept does not hold up the others
			for _, id := range ids {
				if err := sweepKey(keys, id, now); err != nil {
					errs = append(errs, fmt.Errorf("sweep key %s: %w", id, err))
				}
			}
			if len(ids) < sweepBatch || len(errs) > 0 {
				return errors.Join(errs...)
			}
		}
		return nil
	}}
}

// sweepKey records the end of one key. One that was changed since it was found
// is left alone.
func sweepKey(keys Ends, id apikey.ID, now time.Time) error {
	by := apikey.Origin{At: apikey.Instant(now), Actor: "sweep", Address: netip.Addr{}}
	_, err := keys.Change(by, apikey.AnyTenant, id, func(k apikey.Key) (apikey.Change, error) {
		change, ended := k.Sweep(now)
		if !ended {
			return apikey.Change{}, apikey.ErrNotLive
		}
		return change, nil
	})
	if errors.Is(err, apikey.ErrNotLive) {
		return nil
	}
	return err
}
