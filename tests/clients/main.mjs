// A cluster, and the programs of others before it.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'

import { Failed, Process, bounded, temporaryFolder } from '../conformance-suite/processes.mjs'
import { browse } from './browser.mjs'
import { curl } from './curl.mjs'
import { generatedSite } from './site.mjs'

const LIMIT = 120_000 // milliseconds for all of it, which takes 15 s

const { values: options } = parseArgs({
  options: {
    meridian: { type: 'string' },
    site: { type: 'string' },
    verbose: { type: 'boolean', default: false }
  }
})

// `meridian up` with one region, once every node answers.
async function up (site) {
  const folder = temporaryFolder()
  const command = [options.meridian, 'up', site, '--regions', 'fra', '--port', '0',
    '--dir', path.join(folder, 'cdn')]
  const cdn = new Process('meridian up', command)
  const cluster = await cdn.until('ready', async () =>
    JSON.parse(fs.readFileSync(path.join(folder, 'cdn/cluster.json'), 'utf8')))
  return { cdn, cluster }
}

// Prints each claim with its verdict, and counts those that are false.
function claims () {
  let broken = 0
  const claim = (what, holds, otherwise) => {
    if (!holds) broken++
    console.log(`    ${holds ? 'ok    ' : 'BROKEN'} ${what}`)
    if (!holds) console.log(`           ${otherwise}`)
  }
  return { claim, broken: () => broken }
}

const installed = program => !spawnSync(program, ['--version']).error

await bounded(LIMIT, async () => {
  const site = options.site ?? generatedSite(temporaryFolder())
  const programs = [['curl', curl], ['chromium', browse]]
  const there = programs.filter(([program]) => installed(program))
  if (there.length === 0) throw new Failed('neither curl nor chromium is installed: --install')
  const { claim, broken } = claims()
  for (const [program, check] of programs) {
    if (!installed(program)) {
      console.log(`${program}: not installed, left out (--install)`)
      continue
    }
    const { cdn, cluster } = await up(site) // each begins with empty stores
    console.log(`${program}, in front of ${site}:`)
    await check({ cluster, site, claim, verbose: options.verbose })
    await cdn.end()
  }
  if (broken() > 0) console.log(`FAILED: ${broken()} claims are false`)
  return broken() > 0 ? 1 : 0
})
