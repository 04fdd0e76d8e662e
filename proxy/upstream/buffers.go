package upstream

import "sync"

const (
	headBuffer = 4 << 10  // bytes read at first: most heads, with small bodies
	bodyBuffer = 64 << 10 // bytes of a body moved at once
	sendBuffer = 16 << 10 // bytes of a head and body sent in one write
)

// A buffer is memory that is used again.
type buffer struct{ b []byte }

// buffers keeps memory for all connections of an Upstream. Its zero value is
// ready.
type buffers struct{ head, body, send sync.Pool }

func get(p *sync.Pool, size int) *buffer {
	if b, ok := p.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, size)}
}

// put keeps a buffer for get, unless it has grown.
func put(p *sync.Pool, b *buffer, size int) {
	if b != nil && len(b.b) == size {
		p.Put(b)
	}
}

func (p *buffers) getHead() *buffer  { return get(&p.head, headBuffer) }
func (p *buffers) putHead(b *buffer) { put(&p.head, b, headBuffer) }
func (p *buffers) getBody() *buffer  { return get(&p.body, bodyBuffer) }
func (p *buffers) putBody(b *buffer) { put(&p.body, b, bodyBuffer) }
func (p *buffers) getSend() *buffer  { return get(&p.send, sendBuffer) }
func (p *buffers) putSend(b *buffer) { put(&p.send, b, sendBuffer) }
