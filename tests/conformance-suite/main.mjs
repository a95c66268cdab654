// Runs the suite as `run` says, compares, counts.

import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { compare } from './compare.mjs'
import { PROFILES, complaints, read, updated, write } from './expected.mjs'
import { Failed, Process, bounded, temporaryFolder } from './processes.mjs'
import { outcomes, published, score, scoreTable, tests } from './score.mjs'
import { meridian, suiteOrigin } from './servers.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const TABLE = path.join(HERE, 'expected.txt')
const RUN_LIMIT = 120_000 // milliseconds for one run of the suite, which takes 15 s

const { values: options } = parseArgs({
  options: {
    package: { type: 'string' },
    meridian: { type: 'string' },
    profile: { type: 'string' },
    h1: { type: 'boolean', default: false },
    h2: { type: 'boolean', default: false },
    runs: { type: 'string', default: '1' },
    id: { type: 'string' },
    update: { type: 'boolean', default: false },
    compare: { type: 'boolean', default: false },
    cache: { type: 'string' },
    results: { type: 'string' }
  }
})
const runs = Number(options.runs)
if (!(runs >= 1)) throw new Error(`--runs ${options.runs}: not a number of runs`)
if (options.profile && !PROFILES.includes(options.profile)) {
  throw new Error(`--profile ${options.profile}: there are ${PROFILES.join(' and ')}`)
}
const profiles = options.profile ? [options.profile] : PROFILES
const protocols = options.h1 === options.h2 ? ['h1', 'h2'] : [options.h1 ? 'h1' : 'h2']

// One run against a server that is there: the results by test.
export async function run (folder, base, protocol, id) {
  const file = path.join(temporaryFolder(), 'results.json')
  const script = path.join(HERE, 'client.mjs')
  const command = [process.execPath, '--no-warnings', script, folder, base, protocol, file]
  const client = new Process('client', id === undefined ? command : [...command, id],
    { echo: id !== undefined })
  const late = setTimeout(() => client.signal('SIGKILL'), RUN_LIMIT)
  const code = await client.ended
  clearTimeout(late)
  if (code !== 0) throw new Failed(`the suite's client ended with ${code}:\n${client.said}`)
  return JSON.parse(fs.readFileSync(file))
}

// One run in front of a fresh edge and a fresh origin.
async function edgeRun (profile, protocol, id) {
  const origin = await suiteOrigin(options.package, { echo: id !== undefined })
  const edge = await meridian(options.meridian, profile, origin.port)
  try {
    const { results, requests } = await run(options.package, edge.base, protocol, id)
    await edge.carried(protocol, requests)
    return results
  } finally {
    await Promise.all([edge.process.end(), origin.process.end()])
  }
}

async function one (id) {
  const all = await tests(options.package)
  if (!all.has(id)) throw new Failed(`the suite has no test ${id}`)
  const table = read(TABLE)
  for (const profile of profiles) {
    const results = await edgeRun(profile, protocols[0], id)
    const { kind, needs } = all.get(id)
    console.log(`\n${id} (${kind}), profile ${profile}: ${JSON.stringify(results[id])}`)
    console.log(`in the table: ${table.get(id)?.[profile]}; depends on: ${needs.join(', ') || '-'}`)
  }
  return 0
}

// What came out otherwise than the table says.
function differences (all, table, profile, outcome, results) {
  const found = []
  for (const id of all.keys()) {
    const [want, have] = [table.get(id)?.[profile], outcome.get(id)]
    if (want !== have) {
      const said = results[id] === true ? '' : ` (${results[id]?.[1] ?? 'no result'})`
      found.push(`${id}: ${have}, and the table says ${want ?? 'nothing'}${said}`)
    }
  }
  return found
}

async function everything () {
  const all = await tests(options.package)
  let table = read(TABLE)
  let failed = false
  const rows = []
  const complain = (what, lines) => {
    if (lines.length === 0) return
    failed = true
    console.log(`${what}:\n${lines.map(line => `    ${line}`).join('\n')}`)
  }
  for (const profile of profiles) {
    let first
    for (const protocol of protocols) {
      for (let turn = 1; turn <= runs; turn++) {
        const label = `profile ${profile}, ${protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1'}` +
          (runs > 1 ? `, run ${turn} of ${runs}` : '')
        const start = Date.now()
        const results = await edgeRun(profile, protocol)
        const outcome = outcomes(all, results)
        const { required, optimal } = score(all, outcome)
        console.log(`${label}: required ${required.counted.join(' of ')}, optimal ` +
          `${optimal.counted.join(' of ')} (${Math.round((Date.now() - start) / 1000)} s)`)
        if (options.update && !first) {
          const { next, changes } = updated(all, table, profile, outcome)
          table = next
          for (const change of changes) console.log(`    ${profile}: ${change}`)
        }
        complain(options.update ? 'not the same each time' : 'changed',
          differences(all, table, profile, outcome, results))
        if (!first) rows.push({ name: `Meridian, profile ${profile}`, score: score(all, outcome) })
        first ??= outcome
      }
    }
  }
  if (options.update) write(TABLE, all, table)
  complain('the table itself', complaints(all, table))
  rows.push(...await published(options.package, all))
  console.log('\nbeside the results that the package ships, counted in the same way:\n')
  console.log(scoreTable(rows))
  if (failed) console.log('\nFAILED: see above; --update if it is right so')
  return failed ? 1 : 0
}

// Each run has a bound of its own; this one is for what hangs between them.
const LIMIT = RUN_LIMIT * (2 + runs * profiles.length * protocols.length)
await bounded(options.compare ? 10 * RUN_LIMIT : LIMIT, () => {
  if (options.compare) return compare(options, run)
  return options.id === undefined ? everything() : one(options.id)
})
