// The same suite in the same run before other caches and both profiles of Meridian, over HTTP/1.1.
// Their configurations are in `caches/`.

import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

import { PROFILES } from './expected.mjs'
import { Failed, Process, freePorts, temporaryFolder } from './processes.mjs'
import { outcomes, score, scoreTable, tests } from './score.mjs'
import { meridian, suiteOrigin } from './servers.mjs'

const CACHES = path.join(path.dirname(fileURLToPath(import.meta.url)), 'caches')
const MODULES = '/usr/lib/apache2/modules' // where Debian has httpd's

const OTHERS = [
  {
    name: 'nginx',
    version: ['nginx', '-v'],
    files: ['nginx.conf'],
    command: at => ['nginx', '-p', at.folder, '-c', `${at.folder}/nginx.conf`]
  },
  {
    name: 'Varnish',
    version: ['varnishd', '-V'],
    files: ['varnish.vcl'],
    command: at => ['varnishd', '-F', '-n', `${at.folder}/work`, '-f', `${at.folder}/varnish.vcl`,
      '-a', `127.0.0.1:${at.port}`, '-s', 'malloc,64m',
      '-p', 'default_ttl=0', '-p', 'default_grace=0', '-p', 'default_keep=3600']
  },
  {
    name: 'Squid',
    version: ['squid', '-v'],
    files: ['squid.conf'],
    command: at => ['squid', '-N', '-n', `suite${at.port}`, '-f', `${at.folder}/squid.conf`]
  },
  {
    name: 'Apache httpd',
    version: ['apache2', '-v'],
    files: ['httpd.conf'],
    command: at => ['apache2', '-f', `${at.folder}/httpd.conf`, '-D', 'FOREGROUND']
  },
  {
    name: 'Traffic Server',
    version: ['traffic_server', '-V'],
    files: ['trafficserver/records.config', 'trafficserver/remap.config',
      'trafficserver/storage.config', 'trafficserver/ip_allow.yaml', 'trafficserver/runroot.yaml'],
    command: at => ['traffic_server', `--run-root=${at.folder}/runroot.yaml`]
  }
]

// The number in what a program says of its version; nothing if there is no such program.
function version ([program, option]) {
  const said = spawnSync(program, [option], { encoding: 'utf8' })
  return said.error ? undefined : (said.stdout + said.stderr).match(/\d+\.\d+\.?\d*/)?.[0]
}

function files (server, at) {
  fs.chmodSync(at.folder, 0o755) // some servers leave root's account
  for (const folder of ['cache', 'work', 'run', 'log', 'data']) {
    fs.mkdirSync(path.join(at.folder, folder))
    fs.chmodSync(path.join(at.folder, folder), 0o777)
  }
  const asRoot = process.getuid() === 0
  for (const file of server.files) {
    const text = fs.readFileSync(path.join(CACHES, file), 'utf8')
      .replaceAll('@ROOT@ ', asRoot ? '' : '# ')
      .replaceAll('@FOLDER@', at.folder).replaceAll('@PORT@', at.port)
      .replaceAll('@ORIGIN@', at.origin).replaceAll('@MODULES@', MODULES)
    fs.writeFileSync(path.join(at.folder, path.basename(file)), text)
  }
}

async function other (server, origin) {
  const [port] = await freePorts(1)
  const at = { folder: temporaryFolder(), port, origin }
  files(server, at)
  const started = new Process(server.name, server.command(at), { group: true })
  try {
    await started.answers(`http://127.0.0.1:${port}/config/none`) // 405: of the origin
  } catch (error) {
    throw new Failed(`${error.message}\n${logs(at.folder)}`)
  }
  return { process: started, base: `http://127.0.0.1:${port}` }
}

// What a server that did not start wrote into its files.
function logs (folder) {
  const files = fs.readdirSync(path.join(folder, 'log')).map(name => path.join(folder, 'log', name))
  return files.map(file => fs.readFileSync(file, 'utf8').slice(-2_000)).join('\n')
}

export async function compare (options, run) {
  const all = await tests(options.package)
  const rows = []
  let failed = false
  const one = async (name, start) => {
    const origin = await suiteOrigin(options.package)
    let server
    try {
      server = await start(origin.port)
      const { results } = await run(options.package, server.base, 'h1')
      if (options.results) {
        const file = path.join(options.results, `${name.replace(/\W+/g, '-').toLowerCase()}.json`)
        fs.writeFileSync(file, JSON.stringify(results, null, 1))
      }
      rows.push({ name, score: score(all, outcomes(all, results)) })
      console.log(`${name}: done`)
    } catch (error) {
      if (!(error instanceof Failed)) throw error
      failed = true
      console.log(`${name}: ${error.message}`)
    } finally {
      await Promise.all([server?.process.end(), origin.process.end()])
    }
  }
  const wanted = name => options.cache === undefined || options.cache === name
  for (const profile of wanted('Meridian') ? PROFILES : []) {
    const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' })
    await one(`Meridian ${commit.trim()}, profile ${profile}`,
      origin => meridian(options.meridian, profile, origin))
  }
  for (const server of OTHERS.filter(one => wanted(one.name))) {
    const found = version(server.version)
    if (found === undefined) {
      console.log(`${server.name}: not installed, left out (--install)`)
    } else {
      await one(`${server.name} ${found}`, origin => other(server, origin))
    }
  }
  console.log(`\nhttp-cache-tests over HTTP/1.1, one run each, Node.js ${process.version}; ` +
    'counted as in expected.txt, and in full:\n')
  console.log(scoreTable(rows))
  return failed ? 1 : 0
}
