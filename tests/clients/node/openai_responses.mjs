// packages: openai
// setting: baseURL
import OpenAI from 'openai'
import * as talk from './talk.mjs'

const client = new OpenAI({ baseURL: talk.BASE, apiKey: talk.KEY })
const tools = [{ type: 'function', name: 'add', description: 'Adds', parameters: talk.SCHEMA, strict: false }]
const input = []
for (const [turn, content] of talk.ASKED.entries()) {
  input.push({ role: 'user', content })
  for (let call = 0; call < talk.MOST_CALLS; call++) {
    const tool_choice = turn + call === 0 ? 'required' : 'auto'
    const asked = { model: talk.MODEL, instructions: talk.SYSTEM, input, tools, tool_choice, max_output_tokens: 256 }
    const { output } = await client.responses.stream(asked).finalResponse()
    input.push(...output)
    const calls = output.filter(item => item.type === 'function_call')
    if (!calls.length) break
    for (const { call_id, arguments: text } of calls) {
      input.push({ type: 'function_call_output', call_id, output: talk.result(JSON.parse(text)) })
    }
  }
}
