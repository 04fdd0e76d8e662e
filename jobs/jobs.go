// Package jobs is the work that goes on behind the requests.
//
// A job is one pass over what is due, safe to repeat and safe to miss: what a
// pass did not get to is due at the next. Run only calls passes at their times;
// everything worth testing is in a pass.
package jobs

import (
	"context"
	"log/slog"
	"time"
)

// A Job is one kind of background work.
type Job struct {
	Name  string
	Every time.Duration                                  // from the end of a pass to the next
	Pass  func(ctx context.Context, now time.Time) error // does what is due at now
}

// Run runs each job until ctx is done, and returns once their passes have
// ended. A pass that fails is logged and tried again at its next time.
func Run(ctx context.Context, logger *slog.Logger, jobs ...Job) {
	done := make(chan struct{})
	for _, j := range jobs {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				if err := j.Pass(ctx, time.Now()); err != nil && ctx.Err() == nil {
					logger.Error("background job failed", "job", j.Name, "error", err)
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(j.Every):
				}
			}
		}()
	}
	for range jobs {
		<-done
	}
}
