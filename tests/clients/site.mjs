// A site to load where the Rust book is not installed: pages with style sheets, scripts and images.

import fs from 'node:fs'
import path from 'node:path'

export function generatedSite (folder) {
  const root = path.join(folder, 'site')
  fs.mkdirSync(path.join(root, 'parts'), { recursive: true })
  let head = ''
  let body = ''
  for (let index = 0; index < 12; index++) {
    fs.writeFileSync(path.join(root, `parts/${index}.css`), `.c${index} { margin: ${index}px }\n`)
    fs.writeFileSync(path.join(root, `parts/${index}.js`), `window.part${index} = ${index}\n`)
    fs.writeFileSync(path.join(root, `parts/${index}.svg`),
      `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="${index}"/></svg>\n`)
    head += `<link rel="stylesheet" href="parts/${index}.css">\n` +
      `<script src="parts/${index}.js"></script>\n`
    body += `<img src="parts/${index}.svg" alt="">\n`
  }
  fs.writeFileSync(path.join(root, 'index.html'),
    `<!doctype html>\n<title>generated</title>\n<link rel="icon" href="parts/0.svg">\n` +
    `${head}${body}${'<p>text</p>\n'.repeat(500)}`)
  return root
}
