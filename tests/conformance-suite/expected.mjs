// The table of expected outcomes: one line for each test of the suite.
//
//   id  kind  outcome in profile rfc  outcome in profile cdn  reason

import fs from 'node:fs'

export const PROFILES = ['rfc', 'cdn']

const HEAD = `\
# What each test of the public suite is expected to say of Meridian, by profile. The run compares;
# \`tests/conformance-suite/run --update\` rewrites this file and keeps the reasons.
#
# pass, fail    of a test that is required or optimal
# yes, no       of a check, which asks and demands nothing
# setup, retry  what the test needs before it can ask did not happen
# dependency    a test that this one builds on did not pass
#
# A required or optimal test that fails has its reason beside it. A star: counts in the full score
# only (it contradicts RFC 9111, or trusts what must not be trusted).
`

export function read (file) {
  const found = new Map()
  if (!fs.existsSync(file)) return found
  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [, id, kind, rfc, cdn, reason] = line.match(/^(\S+) +(\S+) +(\S+) +(\S+) *(.*)$/)
    found.set(id, { kind, rfc, cdn, reason })
  }
  return found
}

export const kindOf = test => test.kind + (test.counted ? '' : '*')

export function write (file, all, table) {
  let text = HEAD
  let group
  const width = Math.max(...[...all.keys()].map(id => id.length))
  for (const test of all.values()) {
    if (test.group !== group) {
      group = test.group
      text += `\n# ${group.id}: ${group.name}\n`
    }
    const row = table.get(test.id)
    const cells = [test.id.padEnd(width), kindOf(test).padEnd(9), row.rfc.padEnd(10),
      row.cdn.padEnd(10), row.reason]
    text += cells.join(' ').trimEnd() + '\n'
  }
  fs.writeFileSync(file, text)
}

const differs = row => PROFILES.some(profile => ['fail', 'setup', 'retry'].includes(row[profile]))

// What is wrong with the table itself: a difference without its reason, or the other way round.
export function complaints (all, table) {
  const found = []
  for (const test of all.values()) {
    const row = table.get(test.id)
    if (!row) {
      found.push(`${test.id}: not in the table`)
    } else if (row.kind !== kindOf(test)) {
      found.push(`${test.id}: is ${kindOf(test)}, not ${row.kind}`)
    } else if (test.kind !== 'check' && differs(row) && row.reason === '') {
      found.push(`${test.id}: rfc ${row.rfc}, cdn ${row.cdn}: no reason stands beside it`)
    } else if (PROFILES.every(profile => row[profile] === 'pass') && row.reason !== '') {
      found.push(`${test.id}: passes, and has a reason why not`)
    }
  }
  for (const id of table.keys()) if (!all.has(id)) found.push(`${id}: no such test`)
  return found
}

// The table with one profile's outcomes put in, and what that changes.
export function updated (all, table, profile, outcome) {
  const changes = []
  const next = new Map()
  for (const test of all.values()) {
    const row = { rfc: 'untested', cdn: 'untested', reason: '', ...table.get(test.id), kind: kindOf(test) }
    if (row[profile] !== outcome.get(test.id)) {
      changes.push(`${test.id} (${kindOf(test)}): ${row[profile]} -> ${outcome.get(test.id)}`)
      row[profile] = outcome.get(test.id)
    }
    if (PROFILES.every(one => row[one] === 'pass')) row.reason = ''
    next.set(test.id, row)
  }
  return { next, changes }
}
