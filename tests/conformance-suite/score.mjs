// What a run of the suite is worth: the outcome of each test, and the counts.

import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

// Tests of this old release of the suite that contradict RFC 9111 or trust what must not be
// trusted; the reason for each stands beside it in the table. They are run and compared, and count
// only in the full score.
const NOT_COUNTED = new Set([
  'age-parse-nonnumeric', 'age-parse-negative', 'age-parse-float', 'age-parse-prefix-twoline',
  'age-parse-dup-0', 'age-parse-dup-0-twoline', 'age-parse-dup-old', 'age-parse-parameter',
  'age-parse-numeric-parameter',
  '304-etag-update-response-ETag', '304-etag-update-response-Content-MD5',
  'stale-close-must-revalidate', 'stale-close-proxy-revalidate', 'stale-close-no-cache',
  'stale-close-s-maxage=2',
  'conditional-lm-fresh-no-lm',
  'partial-store-partial-reuse-partial', 'partial-store-partial-reuse-partial-absent',
  'partial-store-partial-reuse-partial-suffix', 'partial-store-partial-complete'
])

// Surrogate-Control has no standard; RFC 9213 took its place.
const GROUP_NOT_COUNTED = 'surrogate-control'

const read = file => import(pathToFileURL(file).href).then(module => module.default)

// The groups of the suite, as its own command line runs them.
export async function suites (folder) {
  const tests = path.join(folder, 'node_modules/http-cache-tests/tests')
  const groups = await read(path.join(tests, 'index.mjs'))
  const surrogate = await read(path.join(tests, 'surrogate-control.mjs'))
  return [...groups, surrogate].map(group => ({
    ...group,
    tests: group.tests.filter(test => !test.browser_only) // a cache between is not asked
  }))
}

// Every test by its id, in the order of the suite.
export async function tests (folder) {
  const found = new Map()
  for (const group of await suites(folder)) {
    for (const test of group.tests) {
      const counted = group.id !== GROUP_NOT_COUNTED && !NOT_COUNTED.has(test.id)
      const kind = test.kind ?? 'required'
      found.set(test.id, { id: test.id, group, kind, counted, needs: test.depends_on ?? [] })
    }
  }
  for (const id of NOT_COUNTED) {
    if (!found.has(id)) throw new Error(`the suite has no test ${id}`)
  }
  return found
}

// One word for each test. A test that passed by itself says nothing if one that it builds on did
// not pass: that is `dependency`.
export function outcomes (all, results) {
  const known = new Map()
  const outcome = id => {
    if (!known.has(id)) {
      const test = all.get(id)
      const stands = test.needs.every(need => ['pass', 'yes'].includes(outcome(need)))
      known.set(id, stands ? byItself(test, results[id]) : 'dependency')
    }
    return known.get(id)
  }
  return new Map([...all.keys()].map(id => [id, outcome(id)]))
}

function byItself (test, result) {
  const [good, bad] = test.kind === 'check' ? ['yes', 'no'] : ['pass', 'fail']
  if (result === undefined) return 'untested'
  if (result === true) return good
  const [name, message] = result
  if (name === 'Setup') return message === 'retry' ? 'retry' : 'setup'
  return name === 'Assertion' ? bad : 'broken' // no answer at all, or no HTTP
}

// {required: {counted: [passed, of], full: [passed, of]}, optimal: ...}
export function score (all, outcome) {
  const found = {}
  for (const kind of ['required', 'optimal']) {
    const count = which => [
      which.filter(test => outcome.get(test.id) === 'pass').length,
      which.length
    ]
    const full = [...all.values()].filter(test => test.kind === kind)
    found[kind] = { counted: count(full.filter(test => test.counted)), full: count(full) }
  }
  return found
}

// The scores of the results that the package ships for caches that are no browsers.
export async function published (folder, all) {
  const results = path.join(folder, 'node_modules/http-cache-tests/results')
  const index = await read(path.join(results, 'index.mjs'))
  return index.filter(one => one.type !== 'browser').map(one => {
    const found = JSON.parse(fs.readFileSync(path.join(results, one.file)))
    return { name: `${one.name} ${one.version}`, score: score(all, outcomes(all, found)) }
  })
}

// A table for people and for Markdown alike: rows of [name, score].
export function scoreTable (rows) {
  const head = ['cache', 'required', 'optimal', 'required, full', 'optimal, full']
  const of = ([passed, all]) => `${passed} / ${all}`
  const cells = rows.map(({ name, score }) => [
    name, of(score.required.counted), of(score.optimal.counted),
    of(score.required.full), of(score.optimal.full)
  ])
  const widths = head.map((_, at) => Math.max(...[head, ...cells].map(row => row[at].length)))
  const line = row => '| ' + row.map((cell, at) =>
    at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at])).join(' | ') + ' |'
  const rule = '| ' + widths.map((width, at) =>
    at === 0 ? '-'.repeat(width) : '-'.repeat(width - 1) + ':').join(' | ') + ' |'
  return [line(head), rule, ...cells.map(line)].join('\n')
}
