// packages: @anthropic-ai/sdk
// setting: baseURL (without /v1)
import Anthropic from '@anthropic-ai/sdk'
import * as talk from './talk.mjs'

const client = new Anthropic({ baseURL: talk.ROOT, apiKey: talk.KEY })
const tools = [{ name: 'add', description: 'Adds', input_schema: talk.SCHEMA }]
const messages = []
for (const [turn, content] of talk.ASKED.entries()) {
  messages.push({ role: 'user', content })
  for (let call = 0; call < talk.MOST_CALLS; call++) {
    const tool_choice = { type: turn + call === 0 ? 'any' : 'auto' }
    const asked = { model: talk.MODEL, system: talk.SYSTEM, messages, tools, tool_choice, max_tokens: 256 }
    const message = await client.messages.stream(asked).finalMessage()
    messages.push({ role: 'assistant', content: message.content })
    const calls = message.content.filter(block => block.type === 'tool_use')
    if (!calls.length) break
    const results = calls.map(({ id, input }) => ({ type: 'tool_result', tool_use_id: id, content: talk.result(input) }))
    messages.push({ role: 'user', content: results })
  }
}
