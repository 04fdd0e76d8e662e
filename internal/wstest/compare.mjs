// Runs the same WebSocket traffic directly and through a gateway, with the ws
// package at both ends, and compares what each end sees.
//
//   node compare.mjs LATCHKEY DIRECTORY
//
// LATCHKEY is the binary; DIRECTORY has node_modules/ws and is written to.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { resolve } from 'node:path'

const [, , latchkey, directory] = process.argv
const { WebSocket, WebSocketServer } = createRequire(resolve(directory, 'x.js'))('ws')
const sum = (data) => `${data.length} ${createHash('sha256').update(data).digest('hex').slice(0, 16)}`
setTimeout(() => { console.error('not done within 60s'); process.exit(1) }, 60_000).unref()

async function freePort() {
  const s = createServer().listen(0, '127.0.0.1')
  await once(s, 'listening')
  const { port } = s.address()
  s.close()
  await once(s, 'close')
  return port
}

// traffic plays every case against a server of its own, and returns what was seen.
async function traffic(port, url, deflate) {
  const server = new WebSocketServer({ port, host: '127.0.0.1', perMessageDeflate: deflate, maxPayload: 64 << 20 })
  await once(server, 'listening')
  const seen = []
  let closed
  server.on('connection', (s) => {
    closed = once(s, 'close')
    s.on('message', (data, binary) => {
      seen.push(`server: ${binary ? 'binary' : 'text'} ${sum(data)}`)
      if (String(data.subarray(0, 5)) === 'close') s.close(4321, 'as asked')
      else s.send(data, { binary })
    })
    s.on('ping', (data) => seen.push(`server: ping ${data}`))
    s.on('pong', (data) => seen.push(`server: pong ${data}`))
  })
  for (const end of ['client', 'server']) {
    const c = new WebSocket(url, { perMessageDeflate: deflate, maxPayload: 64 << 20 })
    await once(c, 'open')
    seen.push(`extensions: ${c.extensions}`)
    const echo = async (...send) => {
      const reply = once(c, 'message')
      for (const [data, options] of send) c.send(data, options)
      const [data, binary] = await reply
      seen.push(`client: ${binary ? 'binary' : 'text'} ${sum(data)}`)
    }
    await echo(['hello', {}])
    await echo([Buffer.alloc(0), { binary: true }])
    await echo(['frag', { fin: false }], ['men', { fin: false }], ['ted', { fin: true }])
    await echo([Buffer.alloc(16 << 20, 'latchkey'), { binary: true }])
    const pong = once(c, 'pong')
    c.ping('are you there')
    seen.push(`client: pong ${(await pong)[0]}`)
    const ping = once(c, 'ping')
    const back = once([...server.clients][0], 'pong')
    for (const s of server.clients) s.ping('and you')
    seen.push(`client: ping ${(await ping)[0]}`)
    await back
    const over = once(c, 'close')
    if (end === 'client') c.close(4000, 'enough')
    else c.send('close')
    const [code, reason] = await over
    const [serverCode, serverReason] = await closed
    seen.push(`closed: client ${code} ${reason}, server ${serverCode} ${serverReason}`)
  }
  server.close()
  return seen
}

const [upstream, proxy, admin] = [await freePort(), await freePort(), await freePort()]
const config = resolve(directory, 'latchkey.yaml')
writeFileSync(config, `
proxy: {listen: ["127.0.0.1:${proxy}"], access_log: {enabled: false}}
routes: [{name: all, path: "/{rest:*}", upstream: up, auth: none}]
upstreams: {up: {targets: ["http://127.0.0.1:${upstream}"]}}
store: {path: ${JSON.stringify(resolve(directory, 'store'))}}
admin: {listen: "127.0.0.1:${admin}", operators: [{name: test, role: admin, tenant: "*", token_sha256: "${'0a'.repeat(32)}"}]}
`)
const gateway = spawn(latchkey, ['serve', '--config', config], { stdio: 'ignore' })
const gone = once(gateway, 'exit')
process.on('exit', () => gateway.kill('SIGKILL'))
while (!(await fetch(`http://127.0.0.1:${admin}/readyz`).then((r) => r.ok, () => false))) await new Promise((r) => setTimeout(r, 20))
let differs = false
for (const deflate of [false, true]) {
  const direct = await traffic(upstream, `ws://127.0.0.1:${upstream}/`, deflate)
  const through = await traffic(upstream, `ws://127.0.0.1:${proxy}/`, deflate)
  const same = direct.join('\n') === through.join('\n')
  console.log(`permessage-deflate ${deflate ? 'on' : 'off'}: ${direct.length} events, ${same ? 'the same through the gateway' : 'NOT the same'}`)
  if (!same) direct.forEach((d, i) => d !== through[i] && console.log(`  direct:  ${d}\n  through: ${through[i]}`))
  differs ||= !same
}
gateway.kill('SIGTERM')
const [status] = await gone
if (status !== 0) console.log(`the gateway ended with status ${status}`)
process.exit(differs || status !== 0 ? 1 : 0)
