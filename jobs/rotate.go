package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/apikey"
)

// Rotations finds keys whose scheduled rotation is due, and changes them.
type Rotations interface {
	DueRotations(now time.Time, limit int) ([]apikey.ID, error)
	Changer
}

// A Changer changes keys, one at a time.
type Changer interface {
	Change(by apikey.Origin, tenant string, id apikey.ID, decide func(apikey.Key) (apikey.Change, error)) (apikey.Change, error)
}

// batch is how many due keys a pass reads at a time.
const batch = 256

// Rotate returns the job that begins the scheduled rotations that are due. What
// it makes waits for Deliver; until then it admits nobody.
func Rotate(keys Rotations, format apikey.SecretFormat) Job {
	return Job{Name: "rotate", Every: time.Second, Pass: func(ctx context.Context, now time.Time) error {
		return eachDue(ctx, "find keys to rotate",
			func() ([]apikey.ID, error) { return keys.DueRotations(now, batch) },
			func(id apikey.ID) error {
				return change(keys, "rotate", id, now, func(k apikey.Key) (apikey.Change, error) {
					return k.BeginRotation(newCredentials(format, k.Environment, now), now)
				})
			})
	}}
}

func newCredentials(format apikey.SecretFormat, environment string, now time.Time) apikey.Credentials {
	var entropy [40]byte
	rand.Read(entropy[:]) // never fails: crypto/rand ends the process instead
	return apikey.NewCredentials(format, environment, now, entropy)
}

// atOnce is how many keys a job changes at once: the store syncs the log for all of them
// together.
const atOnce = 32

// eachDue does what is due, a batch at a time until there is less than a batch.
// What fails does not hold up the others, and ends the pass behind its batch: it
// would be found again.
func eachDue(ctx context.Context, finding string, find func() ([]apikey.ID, error), do func(apikey.ID) error) error {
	for ctx.Err() == nil {
		ids, err := find()
		if err != nil {
			return fmt.Errorf("%s: %w", finding, err)
		}
		var (
			all    sync.WaitGroup
			places = make(chan struct{}, atOnce)
			full   atomic.Bool // as it would be for every other key
			mu     sync.Mutex
			errs   []error
			idle   int
		)
		one := func(id apikey.ID) {
			err := guarded(func() error { return do(id) })
			<-places
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, apikey.ErrNotLive):
				idle++
			case errors.Is(err, apikey.ErrStoreFull) && full.Swap(true): // said already
			case err != nil:
				errs = append(errs, fmt.Errorf("key %s: %w", id, err))
			}
		}
		for i, id := range ids {
			if places <- struct{}{}; full.Load() {
				break
			}
			if i == 0 {
				one(id) // by itself: on a full disk it is the only one to be tried
			} else {
				all.Go(func() { one(id) })
			}
		}
		all.Wait()
		if len(ids) < batch || len(errs) > 0 || idle == len(ids) {
			return errors.Join(errs...)
		}
	}
	return nil
}

// change changes a key in a job's name. A key that is no longer what the job
// took it for gives apikey.ErrNotLive.
func change(keys Changer, job string, id apikey.ID, now time.Time, decide func(apikey.Key) (apikey.Change, error)) error {
	_, err := keys.Change(apikey.Origin{At: apikey.Instant(now), Actor: job}, apikey.AnyTenant, id, decide)
	return err
}
