package listen

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the process that sockets are passed on to.
func TestMain(m *testing.M) {
	if places := os.Getenv("LISTEN_TEST_PLACES"); places != "" {
		if err := child(places); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child opens the places that the test wants, says where they are, answers
// every connection with its own process ID, and ends with its standard input.
func child(places string) error {
	// Only now is it known what systemd would have put there.
	if os.Getenv("LISTEN_PID") == "self" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	sockets, err := Inherit()
	if err != nil {
		return err
	}
	for _, name := range activationVariables() {
		if value, set := os.LookupEnv(name); set {
			return fmt.Errorf("%s=%q is still set", name, value)
		}
	}
	var wanted []Place
	if err := json.Unmarshal([]byte(places), &wanted); err != nil {
		return err
	}
	opened, err := sockets.Open(wanted)
	if err != nil {
		return err
	}
	var served []*Listener
	ended := make(chan error)
	for _, l := range opened {
		l := New(l, Options{})
		served = append(served, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				fmt.Fprintln(c, os.Getpid())
				c.Close()
			}
		}()
		fmt.Println(l.Addr())
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	for _, l := range served {
		l.Close()
	}
	for range served {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	return nil
}

// A heir is a child process and what it printed.
type heir struct {
	*exec.Cmd
	lines []string // addresses, or an error
	stdin io.Closer
}

// start passes files on to a child with the environment that systemd would
// give it.
func start(t *testing.T, files []*os.File, pid, count, names string, places ...Place) *heir {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := json.Marshal(places)
	if err != nil {
		t.Fatal(err)
	}
	h := &heir{Cmd: exec.Command(self)}
	h.ExtraFiles = files
	h.Env = append(os.Environ(), "LISTEN_TEST_PLACES="+string(wanted), "LISTEN_PID="+pid, "LISTEN_FDS="+count, "LISTEN_FDNAMES="+names)
	h.Stderr = os.Stderr
	if h.stdin, err = h.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.stop)
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
		h.lines = append(h.lines, lines.Text())
	}
	return h
}

func (h *heir) stop() {
	_ = h.stdin.Close()
	_ = h.Wait()
}

// socket returns a listening socket's address and a descriptor of it.
func socket(t *testing.T, address string) (string, *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // the descriptor keeps it open
	t.Cleanup(func() { f.Close() })
	return l.Addr().String(), f
}

// greeting connects and returns who answers.
func greeting(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestARestartRefusesNoConnection stops the only process that accepts, connects
// all the same, and has the next process answer.
func TestARestartRefusesNoConnection(t *testing.T) {
	addr, file := socket(t, "127.0.0.1:0")
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return c
	}
	place := Place{Name: "proxy", Address: addr}
	first := start(t, []*os.File{file}, "self", "1", "", place)
	if got, want := greeting(t, dial()), strconv.Itoa(first.Process.Pid); got != want {
		t.Fatalf("%s answers, want the first process, %s", got, want)
	}
	first.stop()
	var waiting []net.Conn
	for range 10 {
		waiting = append(waiting, dial())
	}
	second := start(t, []*os.File{file}, "self", "1", "", place)
	for _, c := range waiting {
		if got, want := greeting(t, c), strconv.Itoa(second.Process.Pid); got != want {
			t.Errorf("%s answers who connected between the two, want the second process, %s", got, want)
		}
	}
}

func TestWhichSocketServesWhichPlace(t *testing.T) {
	a, fileA := socket(t, "127.0.0.1:0")
	b, fileB := socket(t, "127.0.0.1:0")
	any, fileAny := socket(t, ":0")
	_, anyPort, _ := net.SplitHostPort(any)
	const free = "127.0.0.1:0"
	for _, tc := range []struct {
		name        string
		files       []*os.File
		pid, names  string
		places      []Place
		want        []string // addresses; "new" for one that was not passed on
		wantProblem string
	}{
		{"by its address", []*os.File{fileA}, "self", "", []Place{{"proxy", a}}, []string{a}, ""},
		{"by its name", []*os.File{fileA}, "self", "proxy", []Place{{"proxy", free}}, []string{a}, ""},
		{"by addresses in another order", []*os.File{fileA, fileB}, "self", "proxy:proxy", []Place{{"proxy", b}, {"proxy", a}}, []string{b, a}, ""},
		{"the address goes before the name", []*os.File{fileA, fileB}, "self", "proxy:proxy", []Place{{"proxy", free}, {"proxy", a}}, []string{b, a}, ""},
		{"the others are opened", []*os.File{fileA}, "self", "x", []Place{{"proxy", free}, {"admin", a}}, []string{"new", a}, ""},
		{"all interfaces", []*os.File{fileAny}, "self", "", []Place{{"proxy", ":" + anyPort}}, []string{any}, ""},
		{"by a host's name", []*os.File{fileA}, "self", "", []Place{{"proxy", strings.Replace(a, "127.0.0.1", "localhost", 1)}}, []string{a}, ""},
		{"none are passed on", nil, "self", "", []Place{{"proxy", free}}, []string{"new"}, ""},
		{"they are for another process", []*os.File{fileA}, "1", "proxy", []Place{{"proxy", free}}, []string{"new"}, ""},

		{"one is for nothing", []*os.File{fileA, fileB}, "self", "spare:proxy", []Place{{"proxy", free}}, nil, `inherited socket 3 ("spare", ` + a + `) is for nothing`},
		{"one too many of a name", []*os.File{fileA, fileB}, "self", "proxy:proxy", []Place{{"proxy", free}}, nil, `inherited socket 4 ("proxy", ` + b + `) is for nothing`},
		{"one that is named for another", []*os.File{fileA}, "self", "admin", []Place{{"proxy", a}, {"admin", free}}, []string{"new", a}, "address already in use"},
		{"one interface is not all", []*os.File{fileA}, "self", "", []Place{{"proxy", a[strings.LastIndex(a, ":"):]}}, nil, "is for nothing"},
		{"no socket", []*os.File{os.Stdin}, "self", "proxy", []Place{{"proxy", free}}, nil, `inherited descriptor 3 ("proxy")`},
		{"fewer names than sockets", []*os.File{fileA, fileB}, "self", "proxy", []Place{{"proxy", free}}, nil, "LISTEN_FDNAMES has 1 names"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := start(t, tc.files, tc.pid, strconv.Itoa(len(tc.files)), tc.names, tc.places...)
			if tc.wantProblem != "" {
				if all := strings.Join(h.lines, "\n"); !strings.HasPrefix(all, "error: ") || !strings.Contains(all, tc.wantProblem) {
					t.Errorf("said %q, want an error with %q", all, tc.wantProblem)
				}
				return
			}
			if len(h.lines) != len(tc.want) {
				t.Fatalf("said %q, want %q", h.lines, tc.want)
			}
			for i, got := range h.lines {
				passedOn := slices.Contains([]string{a, b, any}, got)
				if got != tc.want[i] && (tc.want[i] != "new" || passedOn) {
					t.Errorf("place %d is at %s, want %s", i, got, tc.want[i])
				}
				// A socket of this test that still listens takes the connection, too,
				// so who answers is what counts.
				c, err := net.Dial("tcp", got)
				if err != nil {
					t.Fatal(err)
				}
				if answered := greeting(t, c); answered != strconv.Itoa(h.Process.Pid) {
					t.Errorf("place %d: %s answers, want the child", i, answered)
				}
			}
		})
	}
}

// TestOnlyListeningTCPSocketsAreTaken passes on other kinds.
func TestOnlyListeningTCPSocketsAreTaken(t *testing.T) {
	addr, _ := socket(t, "127.0.0.1:0")
	connected, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	local, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	for name, tc := range map[string]struct {
		of   interface{ File() (*os.File, error) }
		want string
	}{
		"a connection":  {connected.(*net.TCPConn), "is not a listening socket"},
		"a UDP socket":  {packets.(*net.UDPConn), "is not a listening socket"},
		"a Unix socket": {local.(*net.UnixListener), "is not a TCP socket"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := tc.of.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			h := start(t, []*os.File{f}, "self", "1", "proxy", Place{"proxy", "127.0.0.1:0"})
			if all := strings.Join(h.lines, "\n"); !strings.Contains(all, tc.want) {
				t.Errorf("said %q, want %q", all, tc.want)
			}
		})
	}
}

func TestAPlaceThatIsTakenIsNamed(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, err = new(Sockets).Open([]Place{{"proxy", "127.0.0.1:0"}, {"admin", busy.Addr().String()}})
	if at, ok := errors.AsType[*OpenError](err); !ok || at.Place != 1 {
		t.Errorf("Open() = %v, want an *OpenError of the second place", err)
	}
}

func TestParseActivation(t *testing.T) {
	const pid = 42
	for _, tc := range []struct {
		name, pid, fds, names string
		want                  []string
		bad                   bool
	}{
		{"nothing set", "", "", "", nil, false},
		{"no process named", "", "1", "", nil, false},
		{"no number", "42", "", "", nil, false},
		{"for another process", "43", "1", "a", nil, false},
		{"for another process, whatever it is told", "43", "x", "", nil, false},
		{"none", "42", "0", "", []string{}, false},
		{"without names", "42", "2", "", []string{"unknown", "unknown"}, false},
		{"with names", "42", "2", "a:b", []string{"a", "b"}, false},
		{"with an empty name", "42", "2", "a:", []string{"a", ""}, false},
		{"too few names", "42", "2", "a", nil, true},
		{"too many names", "42", "1", "a:b", nil, true},
		{"a process that is none", "x", "1", "", nil, true},
		{"a process below zero", "-42", "1", "", nil, true},
		{"process 0", "0", "1", "", nil, true},
		{"a number that is none", "42", "1 ", "", nil, true},
		{"a number below zero", "42", "-1", "", nil, true},
		{"a number with a sign", "42", "+1", "", nil, true},
		{"too many to be meant", "42", "1025", "", nil, true},
		{"far too many", "42", "18446744073709551617", "", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := map[string]string{"LISTEN_PID": tc.pid, "LISTEN_FDS": tc.fds, "LISTEN_FDNAMES": tc.names}
			got, err := parseActivation(func(name string) string { return env[name] }, pid)
			if !slices.Equal(got, tc.want) || (err != nil) != tc.bad {
				t.Errorf("parseActivation() = %q, %v, want %q, bad = %t", got, err, tc.want, tc.bad)
			}
		})
	}
}

// FuzzParseActivation: whatever the environment holds, there are no more
// sockets than it says, and none for another process.
func FuzzParseActivation(f *testing.F) {
	f.Add("42", "2", "a:b")
	f.Add("42", "1024", "")
	f.Add("43", "-1", ":::")
	f.Fuzz(func(t *testing.T, pid, fds, names string) {
		env := map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names}
		got, err := parseActivation(func(name string) string { return env[name] }, 42)
		if len(got) == 0 {
			return
		}
		if n, e := strconv.Atoi(fds); e != nil || n != len(got) || n > maxInherited || err != nil {
			t.Errorf("%d sockets of LISTEN_FDS=%q, %v", len(got), fds, err)
		}
		if n, e := strconv.Atoi(pid); e != nil || n != 42 {
			t.Errorf("sockets for process %q", pid)
		}
	})
}
