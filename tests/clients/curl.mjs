// What curl sees of an edge, option by option.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

import { temporaryFolder } from '../conformance-suite/processes.mjs'

export async function curl ({ cluster, site, claim }) {
  const edge = cluster.edges[0].url
  const whole = fs.readFileSync(path.join(site, 'index.html'))
  const page = `${edge}/index.html`
  const file = path.join(temporaryFolder(), 'body')

  // The last head, the body, and what curl says of the exchange.
  const ask = (...options) => {
    fs.rmSync(file, { force: true })
    const said = spawnSync('curl', ['--silent', '--show-error', '--max-time', '20', '--output', file,
      '--dump-header', '-', '--write-out', '\n\n%{http_version} %{num_redirects}', ...options],
    { encoding: 'utf8' })
    const parts = said.stdout.split(/\r?\n\r?\n/).filter(part => part !== '')
    const [version, redirects] = (parts.pop() ?? '').split(' ')
    const [status, ...lines] = (parts.pop() ?? '').split(/\r?\n/)
    const fields = Object.fromEntries(lines.map(line => line.split(/: (.*)/s))
      .map(([name, value]) => [name.toLowerCase(), value]))
    const body = fs.existsSync(file) ? fs.readFileSync(file) : Buffer.alloc(0)
    const seen = `${said.stderr}${status}\n${lines.join('\n')}\n${body.length} bytes`
    return { status: Number(status?.split(' ')[1]), fields, body, version, redirects, seen }
  }
  const check = (what, answer, ...conditions) =>
    claim(what, conditions.every(condition => condition), answer.seen)
  const same = (answer, from, to) => answer.body.equals(whole.subarray(from, to))
  const isHit = answer => /; hit/.test(answer.fields['cache-status'] ?? '')

  const unasked = ask('-H', 'Cache-Control: only-if-cached', page)
  check('only-if-cached before anything is stored: 504, made by the edge', unasked,
    unasked.status === 504)
  const first = ask(page)
  check('a plain GET: 200 and every byte of the file', first, first.status === 200, same(first, 0))
  const stored = ask('-H', 'Cache-Control: only-if-cached', page)
  check('only-if-cached afterwards: 200 from the store', stored,
    stored.status === 200, isHit(stored), same(stored, 0))

  const head = ask('-I', page)
  check('-I: the fields of a GET, its length among them, and no body', head,
    head.status === 200, isHit(head), head.fields.etag === first.fields.etag,
    Number(head.fields['content-length']) === whole.length)

  const begin = ask('-r', '0-99', page)
  check('-r 0-99: 206 and these hundred bytes, from the store', begin, begin.status === 206,
    isHit(begin), begin.fields['content-range'] === `bytes 0-99/${whole.length}`,
    same(begin, 0, 100))
  const end = ask('-r', '-100', page)
  check('-r -100: 206 and the last hundred', end, end.status === 206, same(end, -100))
  const rest = ask('-r', `${whole.length - 7}-`, page)
  check('-r N-: 206 and what follows N', rest, rest.status === 206, same(rest, -7))
  const beyond = ask('-r', `${whole.length}-`, page)
  check('-r past the end: 416 with the length', beyond, beyond.status === 416,
    beyond.fields['content-range'] === `bytes */${whole.length}`)

  const compressed = ask('--compressed', page)
  check('--compressed: the bytes of the file, once decoded', compressed,
    compressed.status === 200, same(compressed, 0))

  const unchanged = ask('-H', `If-None-Match: ${first.fields.etag}`, page)
  check('If-None-Match with the ETag: 304 without a body', unchanged,
    unchanged.status === 304, unchanged.body.length === 0)
  const since = ask('-z', first.fields['last-modified'], page)
  check('-z with the Last-Modified: 304', since, since.status === 304)

  const two = ask('--http2-prior-knowledge', page)
  check('--http2-prior-knowledge: HTTP/2, from the same store', two, two.status === 200,
    two.version === '2', isHit(two), same(two, 0))

  const front = ask('--location', `${cluster.front}/index.html`)
  check('--location at the front door: one redirect, then the file', front,
    front.status === 200, front.redirects === '1', same(front, 0))
}
