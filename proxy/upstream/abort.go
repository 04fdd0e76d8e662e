package upstream

import "sync"

// An interrupter is what an exchange is waiting for at the moment.
type interrupter interface{ interrupt() }

// An abort ends an exchange from outside. What is interrupted is named and
// taken back under the same lock, so that an abort never reaches a connection
// that has gone on to another exchange. Its zero value is ready.
type abort struct {
	mu      sync.Mutex
	called  bool
	current interrupter
}

// attach names what to interrupt from now on; nil means nothing. It reports
// false if the exchange has been aborted already.
func (a *abort) attach(i interrupter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.called {
		a.current = nil
		return false
	}
	a.current = i
	return true
}

// detach takes it back, and reports whether the exchange was aborted.
func (a *abort) detach() bool { return !a.attach(nil) }

func (a *abort) was() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.called
}

func (a *abort) call() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.called = true
	if a.current != nil {
		a.current.interrupt()
	}
}

func (a *abort) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.called, a.current = false, nil
}
