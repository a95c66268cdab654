// What stands between the suite's client and its origin, and that origin.

import fs from 'node:fs'
import path from 'node:path'

import { Failed, Process, freePorts, temporaryFolder } from './processes.mjs'

// The package's own server, on a free port.
export async function suiteOrigin (folder, options) {
  const home = path.join(folder, 'node_modules/http-cache-tests')
  const env = {
    npm_config_protocol: 'http',
    npm_config_port: '0',
    npm_config_pidfile: path.join(temporaryFolder(), 'pid')
  }
  const command = [process.execPath, '--no-warnings', 'server/server.mjs']
  const server = new Process('origin', command, { ...options, env, cwd: home })
  const port = await server.until('listening', async () =>
    server.said.match(/Listening on http:\/\/.*:(\d+)\//)?.[1])
  return { process: server, port }
}

// An edge of one profile in front of that origin.
export async function meridian (program, profile, origin) {
  const folder = temporaryFolder()
  const [listen, admin] = await freePorts(2)
  const config = path.join(folder, 'edge.toml')
  fs.writeFileSync(config, `\
name = "edge-1"
region = "fra"
listen = "127.0.0.1:${listen}"
admin = "127.0.0.1:${admin}"
[peers]
origin-1 = "127.0.0.1:${origin}"
[[origin]]
name = "origin-1"
[[site]]
name = "suite"
default = true
profile = "${profile}"
origins = ["origin-1"]
`)
  const edge = new Process(`edge (${profile})`, [program, 'edge', '--config', config])
  await edge.answers(`http://127.0.0.1:${admin}/readyz`)
  return {
    process: edge,
    base: `http://127.0.0.1:${listen}`,
    // Every request of the client, and no other, came to this edge, over that protocol: the edge
    // has counted them. HTTP/1.1 takes a connection for each of a hundred tests at once, HTTP/2
    // one for all.
    carried: async (protocol, requests) => {
      const text = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text()
      const total = name => [...text.matchAll(new RegExp(`^${name}(?:{.*})? (\\d+)$`, 'gm'))]
        .reduce((sum, [, value]) => sum + Number(value), 0)
      const counted = total('edge_requests_total')
      const connections = total('edge_connections_accepted_total')
      const few = connections <= Math.ceil(requests / 100)
      if (counted !== requests || (requests > 100 && few !== (protocol === 'h2'))) {
        throw new Failed(`over ${protocol}, ${requests} requests: the edge counted ${counted} ` +
          `on ${connections} connections`)
      }
    }
  }
}
