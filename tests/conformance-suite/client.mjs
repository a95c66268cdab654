// One run of the suite through the package's own client, in a process of its own: that client
// keeps its results in module state. Writes `{results, requests}` as JSON into a file.
//
//   node client.mjs PACKAGE BASE h1|h2 FILE [TEST]

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

import { h2Fetch } from './h2-fetch.mjs'
import { suites } from './score.mjs'

const LIMIT = 30_000 // milliseconds for one exchange

const [folder, base, protocol, file, id] = process.argv.slice(2)
const nodeFetch = createRequire(path.join(folder, 'package.json'))('node-fetch')
const client = path.join(folder, 'node_modules/http-cache-tests/client/runner.mjs')
const { runTests, getResults } = await import(client)

let requests = 0
const send = protocol === 'h2' ? h2Fetch(nodeFetch, base, LIMIT) : nodeFetch
const counted = (url, init) => {
  requests++
  return send(url, { timeout: LIMIT, ...init })
}

let wanted = await suites(folder)
if (id !== undefined) {
  wanted = wanted.map(suite => ({ ...suite, tests: suite.tests.filter(test => test.id === id) }))
  wanted.forEach(suite => suite.tests.forEach(test => { test.dump = true }))
}
await runTests(wanted, counted, false, base)
fs.writeFileSync(file, JSON.stringify({ results: getResults(), requests }))
process.exit()
