// Package origin is an upstream for benchmarks that costs as little as it can, so
// that what is measured is what stands in front of it.
//
// GET or POST /bytes/N is answered with N bytes, after the request's body. GET
// /events is a stream that says hello and then one word a minute. Requests come from
// a proxy under test and are not looked at closely.
package origin

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Serve answers on the listener's connections until it is closed.
func Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			s := &server{Conn: c, buf: make([]byte, 64<<10), answers: map[string][]byte{}}
			for s.serveOne() == nil {
			}
		}()
	}
}

// A server is one connection.
type server struct {
	net.Conn
	buf     []byte
	have    int
	answers map[string][]byte // by target
}

func (s *server) fill() error {
	n, err := s.Read(s.buf[s.have:])
	s.have += n
	if n > 0 {
		return nil
	}
	return err
}

// serveOne answers a request.
func (s *server) serveOne() error {
	end := bytes.Index(s.buf[:s.have], []byte("\r\n\r\n"))
	for ; end < 0; end = bytes.Index(s.buf[:s.have], []byte("\r\n\r\n")) {
		if s.have == len(s.buf) {
			return fmt.Errorf("a head of more than %d bytes", len(s.buf))
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
	head := s.buf[:end+2]
	target := head
	if from := bytes.IndexByte(head, ' '); from >= 0 {
		target = head[from+1:]
		target = target[:max(bytes.IndexByte(target, ' '), 0)]
	}
	answer, ok := s.answers[string(target)]
	if !ok {
		if string(target) == "/events" {
			return s.events()
		}
		answer = answerTo(string(target))
		s.answers[string(target)] = answer
	}
	body, err := bodyLength(head)
	if err != nil {
		return err
	}
	s.have = copy(s.buf, s.buf[end+4:s.have])
	for body > s.have {
		body -= s.have
		s.have = 0
		if err := s.fill(); err != nil {
			return err
		}
	}
	s.have = copy(s.buf, s.buf[body:s.have])
	_, err = s.Write(answer)
	return err
}

// bodyLength allocates only for what it refuses.
func bodyLength(head []byte) (int, error) {
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return 0, fmt.Errorf("bodies in chunks are not read")
		}
	}
	return 0, nil
}

func answerTo(target string) []byte {
	n, err := strconv.Atoi(target[min(len("/bytes/"), len(target)):])
	if err != nil || n < 0 || n > 64<<20 {
		return []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", n)
	return append([]byte(head), bytes.Repeat([]byte{'a'}, n)...)
}

func (s *server) events() error {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
	if _, err := s.Write([]byte(head)); err != nil {
		return err
	}
	for {
		if _, err := s.Write([]byte("d\r\ndata: hello\n\n\r\n")); err != nil {
			return err
		}
		<-time.After(time.Minute)
	}
}
