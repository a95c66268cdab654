// What the suite needs of `fetch`, over HTTP/2 in clear text with prior knowledge.
//
// Requests and responses are node-fetch's own, so that a test sees the same defaults (Accept,
// Accept-Encoding, User-Agent, Content-Type) and the same header semantics over both protocols.
// Redirects are not followed: each test that gets one asks for that.

import http2 from 'node:http2'
import zlib from 'node:zlib'

const DECODERS = {
  gzip: zlib.createGunzip,
  'x-gzip': zlib.createGunzip,
  deflate: zlib.createInflate,
  br: zlib.createBrotliDecompress
}

export function h2Fetch (nodeFetch, base, limit) {
  let session
  const open = () => {
    if (!session || session.closed || session.destroyed) {
      session = http2.connect(base)
      session.on('error', () => {}) // each of its requests fails, and tells
      session.on('goaway', () => session.close())
    }
    return session
  }
  return (url, init) => new Promise((resolve, reject) => {
    const request = new nodeFetch.Request(url, init)
    const stream = open().request(fields(request), { endStream: init?.body === undefined })
    const late = setTimeout(() => stream.destroy(new Error(`no answer in ${limit} ms`)), limit)
    stream.on('error', reject)
    stream.on('close', () => {
      clearTimeout(late)
      // A stream that is reset without an error code closes without an error. Late for most.
      reject(new Error(`closed without an answer, code ${stream.rstCode}`))
    })
    stream.on('response', (headers, flags, raw) => {
      resolve(answer(nodeFetch, request, stream, headers[':status'], raw))
    })
    if (init?.body !== undefined) stream.end(init.body)
  })
}

function fields (request) {
  const { pathname, search } = new URL(request.url)
  const found = {
    ':method': request.method,
    ':path': pathname + search,
    accept: '*/*',
    'accept-encoding': 'gzip,deflate',
    'user-agent': 'node-fetch/1.0 (+https://github.com/bitinn/node-fetch)'
  }
  for (const [name, values] of Object.entries(request.headers.raw())) {
    found[name.toLowerCase()] = values.length === 1 ? values[0] : values
  }
  return found
}

function answer (nodeFetch, request, stream, status, raw) {
  const headers = new nodeFetch.Headers()
  for (let index = 0; index < raw.length; index += 2) {
    if (!raw[index].startsWith(':')) headers.append(raw[index], raw[index + 1])
  }
  if (request.redirect === 'follow' && headers.has('location') && [301, 302, 303, 307, 308]
    .includes(status)) {
    throw new Error(`a redirect that is to be followed: ${status}`)
  }
  const decoder = DECODERS[headers.get('content-encoding')?.toLowerCase()]
  const hasBody = request.method !== 'HEAD' && ![204, 304].includes(status)
  const body = decoder && hasBody ? stream.pipe(decoder()) : stream
  if (body !== stream) stream.on('error', error => body.destroy(error))
  return new nodeFetch.Response(body, { url: request.url, status, headers })
}
