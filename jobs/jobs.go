// Package jobs is the work that goes on behind the requests.
//
// A job is one pass over what is due, safe to repeat and safe to miss: what a
// pass did not get to is due at the next. Run only calls passes at their times;
// everything worth testing is in a pass.
package jobs

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"
)

// A Job is one kind of background work.
type Job struct {
	Name  string
	Every time.Duration                                  // from the end of a pass to the next
	Pass  func(ctx context.Context, now time.Time) error // does what is due at now
}

// Run runs each job until ctx is done, and returns once their passes have
// ended. A pass that fails or panics is logged and tried again at its next
// time: background work does not take requests down with it.
func Run(ctx context.Context, logger *slog.Logger, jobs ...Job) {
	done := make(chan struct{})
	for _, j := range jobs {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				j.pass(ctx, logger)
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

// pass runs the job's pass and logs how it failed, if it did. An error that
// comes of ctx being done is none.
func (j *Job) pass(ctx context.Context, logger *slog.Logger) {
	defer func() {
		if recover() != nil {
			// The value of the panic may quote a key; where it happened does not.
			logger.Error("background job panicked", "job", j.Name, "stack", string(debug.Stack()))
		}
	}()
	if err := j.Pass(ctx, time.Now()); err != nil && ctx.Err() == nil {
		logger.Error("background job failed", "job", j.Name, "error", err)
	}
}
