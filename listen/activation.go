package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	firstInherited = 3    // SD_LISTEN_FDS_START
	maxInherited   = 1024 // more is a mistake
)

// activationVariables is what sd_listen_fds(3) reads. LISTEN_PIDFDID only
// guards against a process ID that was used again.
func activationVariables() []string {
	return []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}
}

// Inherit takes over the sockets that this process was started with, by the
// rules of sd_listen_fds(3), and takes the environment's variables about them
// away, so that no child takes the sockets for its own. Without any, there are
// none. A descriptor that is no listening TCP socket is an error. The sockets
// are for Open, or for Close.
func Inherit() (*Sockets, error) {
	names, err := parseActivation(os.Getenv, os.Getpid())
	for _, name := range activationVariables() {
		err = errors.Join(err, os.Unsetenv(name))
	}
	if err != nil {
		return nil, fmt.Errorf("inherit sockets: %w", err)
	}
	s := &Sockets{}
	var errs []error
	for i, name := range names {
		socket, err := takeOver(firstInherited+i, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.inherited = append(s.inherited, socket)
	}
	if len(errs) > 0 {
		s.Close()
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// parseActivation returns the names of the sockets a process is given, from
// descriptor 3 on. LISTEN_PID says whom they are for: a child of that process
// has the variables too, and none of the sockets.
func parseActivation(getenv func(string) string, pid int) ([]string, error) {
	forWhom, count, names := getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES")
	if forWhom == "" || count == "" {
		return nil, nil
	}
	id, err := strconv.ParseUint(forWhom, 10, 31)
	if err != nil || id == 0 {
		return nil, fmt.Errorf("LISTEN_PID=%q is not the ID of a process", forWhom)
	}
	if int(id) != pid {
		return nil, nil
	}
	n, err := strconv.ParseUint(count, 10, 31)
	if err != nil || n > maxInherited {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a number from 0 to %d", count, maxInherited)
	}
	if names == "" {
		// What systemd calls a socket without a name.
		return slices.Repeat([]string{"unknown"}, int(n)), nil
	}
	list := strings.Split(names, ":")
	if len(list) != int(n) {
		return nil, fmt.Errorf("LISTEN_FDNAMES has %d names, and LISTEN_FDS is %d", len(list), n)
	}
	return list, nil
}

// An inherited is a socket that was open when the process started.
type inherited struct {
	fd       int
	name     string
	listener net.Listener
}

// String names the socket as its owner knows it.
func (i *inherited) String() string {
	return fmt.Sprintf("inherited socket %d (%q, %s)", i.fd, i.name, i.listener.Addr())
}

// takeOver makes a listener of a descriptor. The descriptor itself is closed:
// the listener has a duplicate that children do not inherit.
func takeOver(fd int, name string) (*inherited, error) {
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("inherited descriptor %d (%q): %w", fd, name, err)
	}
	if listening == 0 {
		return nil, fmt.Errorf("inherited descriptor %d (%q) is not a listening socket", fd, name)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("inherited descriptor %d (%q): %w", fd, name, err)
	}
	if _, ok := l.(*net.TCPListener); !ok {
		return nil, errors.Join(fmt.Errorf("inherited descriptor %d (%q) is not a TCP socket", fd, name), l.Close())
	}
	return &inherited{fd, name, l}, nil
}
