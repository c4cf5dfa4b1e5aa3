// packages: openai
// setting: baseURL
import OpenAI from 'openai'
import * as talk from './talk.mjs'

const client = new OpenAI({ baseURL: talk.BASE, apiKey: talk.KEY })
const tools = [{ type: 'function', function: { name: 'add', description: 'Adds', parameters: talk.SCHEMA } }]
const messages = [{ role: 'system', content: talk.SYSTEM }]
for (const [turn, content] of talk.ASKED.entries()) {
  messages.push({ role: 'user', content })
  for (let call = 0; call < talk.MOST_CALLS; call++) {
    const tool_choice = turn + call === 0 ? 'required' : 'auto'
    const asked = { model: talk.MODEL, messages, tools, tool_choice, max_tokens: 256 }
    const { choices } = await client.chat.completions.stream(asked).finalChatCompletion()
    const { message } = choices[0]
    messages.push(message)
    if (!message.tool_calls?.length) break
    for (const { id, function: { arguments: text } } of message.tool_calls) {
      messages.push({ role: 'tool', tool_call_id: id, content: talk.result(JSON.parse(text)) })
    }
  }
}
