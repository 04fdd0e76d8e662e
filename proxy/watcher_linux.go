package proxy

import (
	"sync"
	"syscall"
	"time"
)

// A watcher notices clients that leave while an upstream works for them. Nobody
// reads from such a connection, so nothing else would tell.
//
// At every glance it looks through the connections for requests that take long,
// and has the kernel tell it when one of their clients hangs up. A client that
// says that it sends no more (shutdown) counts as one that left, as it does for
// nginx: TCP does not tell the two apart.
type watcher struct {
	epoll int
	stop  chan struct{}
	ended sync.WaitGroup

	mu      sync.Mutex
	watched map[int32]*clientConn // by descriptor
	number  map[*clientConn]int32
}

// glance is how often the watcher looks. A client that left is noticed within
// three of them.
const glance = 25 * time.Millisecond

func newWatcher(all *conns) (*watcher, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &watcher{epoll: fd, stop: make(chan struct{}), watched: map[int32]*clientConn{}, number: map[*clientConn]int32{}}
	w.ended.Go(func() { w.look(all) })
	return w, nil
}

// look finds requests that take long, and clients of theirs that have left.
func (w *watcher) look(all *conns) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	events := make([]syscall.EpollEvent, 256)
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			all.each((*clientConn).watchIfSlow)
		}
		for {
			n, err := syscall.EpollWait(w.epoll, events, 0)
			if err != nil || n == 0 {
				break
			}
			for _, e := range events[:n] {
				w.mu.Lock()
				c := w.watched[e.Fd]
				w.mu.Unlock()
				if c != nil {
					c.abort()
				}
			}
		}
	}
}

// watch has the kernel watch a connection, and reports whether it does.
func (w *watcher) watch(c *clientConn) bool {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := int32(fd)
		event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: n}
		if ok = syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, int(fd), &event) == nil; ok {
			w.watched[n], w.number[c] = c, n
		}
	})
	return ok && err == nil
}

// forget undoes watch. Where the connection is closed the kernel has forgotten
// it already.
func (w *watcher) forget(c *clientConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.number[c]
	if !ok {
		return
	}
	delete(w.number, c)
	if w.watched[n] == c {
		delete(w.watched, n)
		_ = syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_DEL, int(n), nil)
	}
}

func (w *watcher) close() {
	select {
	case <-w.stop:
		return
	default:
	}
	close(w.stop)
	w.ended.Wait()
	_ = syscall.Close(w.epoll)
}
