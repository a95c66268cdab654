// Headless Chromium before the front door, told what to do and asked what it saw through the
// DevTools protocol. That goes over two pipes (file descriptors 3 and 4): no port, no library.

import path from 'node:path'

import { Failed, PATIENCE, Process, temporaryFolder, within }
  from '../conformance-suite/processes.mjs'

const QUIET = 500 // milliseconds without a request in flight: the page is there

export async function browse ({ cluster, claim, verbose }) {
  const folder = temporaryFolder()
  // Root has no sandbox; containers often have no room for shared memory.
  const browser = new Process('chromium', ['chromium', '--headless=new', '--no-sandbox',
    '--disable-dev-shm-usage', '--disable-gpu', '--no-first-run', '--disable-extensions',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--remote-debugging-pipe', `--user-data-dir=${path.join(folder, 'profile')}`, 'about:blank'],
  { group: true, stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'], env: { HOME: folder } })
  try {
    const tab = await openTab(browser)
    await check(tab, cluster, claim, verbose)
  } finally {
    await browser.end()
  }
}

async function check (tab, cluster, claim, verbose) {
  const edges = cluster.edges.map(edge => new URL(edge.url).host)
  const load = async (what, order) => {
    const seen = await tab.load(order)
    if (verbose) for (const one of seen.requests) console.log(`        ${what}: ${line(one)}`)
    return seen
  }
  const told = requests => requests.map(line).join('\n           ') || 'none'
  const isHit = one => /; hit/.test(one.fields['cache-status'] ?? '')
  const clean = (what, seen) => claim(`${what}: no failed request, nothing in the console`,
    seen.troubles.length === 0, seen.troubles.join('\n           '))

  const first = await load('first', () => tab.send('Page.navigate', { url: `${cluster.front}/` }))
  const [front, ...rest] = first.requests
  const parts = rest.slice(1)
  claim('the front door sends the browser to an edge',
    front?.status === 307 && new URL(front.url).host === new URL(cluster.front).host,
    told([front].filter(Boolean)))
  const wrong = rest.filter(one => one.status !== 200 || !edges.includes(new URL(one.url).host))
  claim(`the page and its ${parts.length} parts come with 200 from an edge`,
    parts.length >= 10 && wrong.length === 0, told(wrong))
  clean('first load', first)

  await tab.send('Network.clearBrowserCache')
  const second = await load('second', () => tab.send('Page.navigate', { url: rest[0].url }))
  const asked = second.requests.filter(one => one.fromNetwork)
  const missed = asked.filter(one => one.status !== 200 || !isHit(one))
  claim(`an empty browser asks ${asked.length} times, and each answer is a hit`,
    asked.length >= parts.length && missed.length === 0, told(missed))
  clean('second load', second)

  const again = await load('reload', () => tab.send('Page.reload'))
  const page = again.requests.find(one => one.url === rest[0].url)
  claim('a reload asks for the page with its validator, and is answered 304 from the store',
    page?.status === 304 && page.conditional && isHit(page), told([page].filter(Boolean)))
  clean('reload', again)

  // A reload takes what is fresh from the browser's own store; `no-cache` asks for all of it.
  const urls = JSON.stringify(parts.map(one => one.url))
  const revalidated = await load('revalidation', () => tab.send('Runtime.evaluate', {
    expression: `Promise.all(${urls}.map(url => fetch(url, { cache: 'no-cache' })
      .then(answer => answer.arrayBuffer())))`,
    awaitPromise: true
  }))
  const changed = revalidated.requests.filter(one => one.status !== 304 || !one.conditional)
  claim(`each of the ${parts.length} parts, asked for again with its validator, is answered 304`,
    revalidated.requests.length >= parts.length && changed.length === 0, told(changed))
  clean('revalidation', revalidated)

  const missing = await load('missing', () => tab.send('Runtime.evaluate', {
    expression: "new Promise(done => { const image = new Image(); image.onerror = done; " +
      "image.src = 'no-such-part.svg'; document.body.append(image) }).then(() => 0)",
    awaitPromise: true
  }))
  claim('had a part been missing, it would have been told', missing.troubles.length > 0, 'nothing')
}

const line = one => `${one.status} ${one.url} ${one.conditional ? 'conditional ' : ''}` +
  `${one.fields['cache-status'] ?? ''}`

// A tab, and everything that it asks for.
async function openTab (browser) {
  const [, , , orders, events] = browser.child.stdio
  const waiting = new Map()
  let listener = () => {}
  let number = 0
  let text = ''
  events.setEncoding('utf8').on('data', more => {
    text += more
    const messages = text.split('\0')
    text = messages.pop()
    for (const message of messages.map(one => JSON.parse(one))) {
      const { resolve, reject } = waiting.get(message.id) ?? {}
      waiting.delete(message.id)
      if (message.id === undefined) listener(message)
      else if (message.error) reject(new Failed(`chromium: ${message.error.message}`))
      else resolve(message.result)
    }
  })
  orders.on('error', () => {}) // it has ended: whoever waits for an answer is told in time
  const send = (method, params = {}, sessionId) => {
    const answer = new Promise((resolve, reject) => {
      waiting.set(++number, { resolve, reject })
      orders.write(JSON.stringify({ id: number, method, params, sessionId }) + '\0')
    })
    return within(PATIENCE, answer, `${method}\n${browser.said}\n`)
  }
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' })
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true })
  const inTab = (method, params) => send(method, params, sessionId)
  for (const domain of ['Network', 'Page', 'Runtime', 'Log']) await inTab(`${domain}.enable`)

  return {
    send: inTab,
    // What is asked for from the order on, until nothing is in flight any more.
    load: async order => {
      const log = new Log()
      listener = message => log.hear(message)
      await order()
      await within(PATIENCE, log.quiet(), 'the page')
      listener = () => {}
      return { requests: log.requests, troubles: log.troubles }
    }
  }
}

// The requests of one load in their order, a redirect and its target apart.
class Log {
  requests = []
  troubles = []
  #open = new Map() // by the browser's id: the request that is in flight
  #extra = new Map() // what came over the network, which may be told before or after the response
  #last = Date.now()
  #begun = false

  hear ({ method, params }) {
    const handler = this[method]
    if (!handler) return
    this.#last = Date.now()
    handler.call(this, params)
  }

  async quiet () {
    while (!this.#begun || this.#open.size > 0 || Date.now() - this.#last < QUIET) {
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    for (const one of this.requests) {
      const [asked, answered] = [one.asked?.shift(), one.answered?.shift()]
      one.fromNetwork = answered !== undefined
      one.conditional = asked !== undefined && Object.keys(asked).some(name =>
        ['if-none-match', 'if-modified-since'].includes(name.toLowerCase()))
      if (answered) {
        one.status = answered.statusCode // the response says 200 where the wire said 304
        one.fields = lower(answered.headers)
      }
    }
  }

  #extras (id) {
    if (!this.#extra.has(id)) this.#extra.set(id, { asked: [], answered: [] })
    return this.#extra.get(id)
  }

  'Network.requestWillBeSent' ({ requestId, request, redirectResponse }) {
    if (!/^http/.test(request.url)) return
    this.#begun = true
    if (redirectResponse) this.#note(requestId, redirectResponse)
    const one = { url: request.url, status: 0, fields: {}, ...this.#extras(requestId) }
    this.requests.push(one)
    this.#open.set(requestId, one)
  }

  'Network.requestWillBeSentExtraInfo' ({ requestId, headers }) {
    this.#extras(requestId).asked.push(headers)
  }

  'Network.responseReceivedExtraInfo' ({ requestId, statusCode, headers }) {
    this.#extras(requestId).answered.push({ statusCode, headers })
  }

  'Network.responseReceived' ({ requestId, response }) {
    this.#note(requestId, response)
  }

  #note (requestId, response) {
    const one = this.#open.get(requestId)
    if (!one) return
    one.status = response.status
    one.fields = lower(response.headers)
    if (response.status >= 400) this.troubles.push(`${response.status} ${response.url}`)
  }

  'Network.loadingFinished' ({ requestId }) {
    this.#open.delete(requestId)
  }

  'Network.loadingFailed' ({ requestId, errorText, canceled }) {
    const one = this.#open.get(requestId)
    this.#open.delete(requestId)
    if (one) this.troubles.push(`${errorText}${canceled ? ' (cancelled)' : ''} ${one.url}`)
  }

  'Runtime.exceptionThrown' ({ exceptionDetails }) {
    const { text, exception } = exceptionDetails
    this.troubles.push(`exception: ${text} ${exception?.description ?? ''}`)
  }

  'Runtime.consoleAPICalled' ({ type, args }) {
    if (type === 'error') this.troubles.push(`console: ${args.map(one => one.value).join(' ')}`)
  }

  'Log.entryAdded' ({ entry }) {
    if (entry.level === 'error') this.troubles.push(`log: ${entry.text} ${entry.url ?? ''}`)
  }
}

const lower = headers => Object.fromEntries(
  Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
