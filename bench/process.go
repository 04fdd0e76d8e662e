package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticks is how many of a second /proc counts times in: USER_HZ, which is 100 on every
// architecture that Go runs Linux on.
const ticks = 100

// A process is a child on cores of its own.
type process struct {
	*exec.Cmd
	name   string
	stderr string // the file it complains into
	ended  chan struct{}
}

// startPinned starts a command on the given cores, a list as taskset takes it; empty
// is any, and an empty program is this one. It complains into a file of dir.
func startPinned(dir, name, cores string, command []string, prepare func(*exec.Cmd)) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if command[0] == "" {
		command[0] = self
	}
	p := &process{Cmd: exec.Command(self, append([]string{"pinned", cores, "--"}, command...)...), name: name, stderr: filepath.Join(dir, name+".stderr"), ended: make(chan struct{})}
	log, err := os.Create(p.stderr)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.Stderr = log
	p.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir) // where Caddy keeps things
	// The harness may be killed; what it has started must not outlive it.
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if prepare != nil {
		prepare(p.Cmd)
	}
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.Wait() // how it ended is in what it said
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process, and kills it if it does not listen.
func (p *process) stop() {
	_ = p.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() })
	defer timer.Stop()
	<-p.ended
}

// complaint returns the last line that the process has written about itself.
func (p *process) complaint() string {
	text, err := os.ReadFile(p.stderr)
	if err != nil || len(text) == 0 {
		return p.name + " said nothing"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// A use is what processes have used so far.
type use struct {
	user, system float64 // seconds
	rss, peak    int64   // bytes
}

// usage adds up a process and all below it: nginx works in children.
func usage(pid int) (use, error) {
	var out use
	parents, err := parents()
	if err != nil {
		return out, err
	}
	for child := range parents {
		for at := child; at > 1; at = parents[at] {
			if at == pid {
				if err := out.add(child); err != nil {
					return out, err
				}
				break
			}
		}
	}
	return out, nil
}

// parents returns the parent of every process.
func parents() (map[int]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	out := map[int]int{}
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name))
		if fields, err := stat(pid); err == nil {
			out[pid], _ = strconv.Atoi(fields[1])
		}
	}
	return out, nil
}

// stat returns the fields of /proc/PID/stat from the state on (proc(5)), which is
// what follows the name in parentheses.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

func (u *use) add(pid int) error {
	fields, err := stat(pid)
	if err != nil {
		return err
	}
	user, errUser := strconv.ParseFloat(fields[11], 64)
	system, errSystem := strconv.ParseFloat(fields[12], 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return err
	}
	u.user += user / ticks
	u.system += system / ticks
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.rss += kib << 10
		case "VmHWM":
			u.peak += kib << 10
		}
	}
	return lines.Err()
}
