// Processes that a test starts: each is ended by its id, whatever becomes of the test.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'

export const PATIENCE = 20_000 // milliseconds until a server answers, or has ended

const running = new Set()
const folders = new Set()

// Something that makes the run impossible, for people.
export class Failed extends Error {}

export class Process {
  // `group`: the program starts others that do not end with it, so they share a process group.
  constructor (name, command, { env = {}, cwd, group = false, echo = false, stdio } = {}) {
    this.name = name
    this.said = ''
    this.group = group
    this.child = spawn(command[0], command.slice(1), {
      env: { ...process.env, ...env },
      cwd,
      detached: group,
      stdio: stdio ?? ['ignore', 'pipe', 'pipe']
    })
    for (const pipe of [this.child.stdout, this.child.stderr]) {
      pipe?.setEncoding('utf8').on('data', text => {
        if (echo) process.stdout.write(text)
        this.said = (this.said + text).slice(-20_000)
      })
    }
    this.ended = new Promise(resolve => {
      const gone = what => {
        running.delete(this)
        resolve(what)
      }
      this.child.on('error', error => gone(error.message))
      this.child.on('exit', (code, signal) => gone(signal ?? code))
    })
    running.add(this)
  }

  get runs () {
    return running.has(this)
  }

  signal (name) {
    try {
      process.kill(this.group ? -this.child.pid : this.child.pid, name)
    } catch (error) {
      if (error.code !== 'ESRCH') throw error
    }
  }

  async end () {
    for (const signal of ['SIGTERM', 'SIGKILL']) {
      if (!this.runs) break
      this.signal(signal)
      await within(10_000, this.ended).catch(() => {})
    }
    if (this.group) this.signal('SIGKILL')
  }

  // Asks until `condition` gives something, as long as the process runs.
  async until (what, condition) {
    const deadline = Date.now() + PATIENCE
    for (;;) {
      const found = await condition().catch(() => undefined)
      if (found) return found
      if (!this.runs) throw new Failed(`${this.name} ended (${await this.ended}):\n${this.said}`)
      if (Date.now() > deadline) throw new Failed(`${this.name}: not ${what}:\n${this.said}`)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }

  async answers (url) {
    await this.until(`answering at ${url}`, async () => {
      const response = await fetch(url, { signal: AbortSignal.timeout(1000) })
      await response.arrayBuffer()
      return response.status < 500
    })
  }
}

// `promise`, or an error after so many milliseconds.
export function within (milliseconds, promise, what = 'it') {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Failed(`${what} took over ${milliseconds} ms`)),
      milliseconds)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export async function freePorts (count) {
  const servers = []
  for (let index = 0; index < count; index++) {
    const server = net.createServer().listen(0, '127.0.0.1')
    await new Promise((resolve, reject) => server.on('listening', resolve).on('error', reject))
    servers.push(server)
  }
  const ports = servers.map(server => server.address().port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

export function temporaryFolder () {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'meridian-suite-'))
  folders.add(folder)
  return folder
}

// Runs `body` within so many milliseconds, and leaves no process and no folder behind.
export async function bounded (milliseconds, body) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => process.exit(1))
  }
  process.on('exit', () => {
    for (const one of running) one.signal('SIGKILL')
    for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true })
  })
  try {
    process.exitCode = await within(milliseconds, body(), 'the whole run')
  } catch (error) {
    console.error(error instanceof Failed ? `FAILED: ${error.message}` : error)
    process.exitCode = 1
  } finally {
    await Promise.all([...running].map(one => one.end()))
  }
  process.exit()
}
