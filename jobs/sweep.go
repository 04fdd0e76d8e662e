package jobs

import (
	"context"
	"fmt"
	"time"

	"latchkey/apikey"
)

// Ends finds and changes keys that are past their end.
type Ends interface {
	DueEnds(now time.Time, limit int) ([]apikey.ID, error)
	Changer
}

// Sweep returns the job that records which keys have expired or outlived their
// grace, so that lists and totals show it. Admission does not wait for it.
func Sweep(keys Ends) Job {
	return Job{Name: "sweep", Every: time.Second, Pass: func(ctx context.Context, now time.Time) error {
		return eachDue(ctx, "find ended keys",
			func() ([]apikey.ID, error) { return keys.DueEnds(now, batch) },
			func(id apikey.ID) error {
				return change(keys, "sweep", id, now, func(k apikey.Key) (apikey.Change, error) {
					if c, ended := k.Sweep(now); ended {
						return c, nil
					}
					return apikey.Change{}, apikey.ErrNotLive // it was changed since it was found
				})
			})
	}}
}

// Forgetful erases receipts that are over.
type Forgetful interface {
	DropReceipts(now time.Time, limit int) (int, error)
}

// Forget returns the job that erases the kept answers to calls whose time is
// over.
func Forget(receipts Forgetful) Job {
	return Job{Name: "forget", Every: time.Minute, Pass: func(ctx context.Context, now time.Time) error {
		for ctx.Err() == nil {
			n, err := receipts.DropReceipts(now, batch)
			if err != nil {
				return fmt.Errorf("erase kept answers: %w", err)
			}
			if n < batch {
				return nil
			}
		}
		return nil
	}}
}
