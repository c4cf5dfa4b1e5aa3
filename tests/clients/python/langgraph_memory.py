# packages: langchain langchain-openai langgraph
# setting: base_url
# The graph keeps the conversation.
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

import talk

model = ChatOpenAI(model=talk.MODEL, base_url=talk.BASE, api_key=talk.KEY, max_tokens=256, streaming=True)
agent = create_agent(model, tools=[talk.add], system_prompt=talk.SYSTEM, checkpointer=InMemorySaver())
for text in talk.ASKED:
    agent.invoke({"messages": [{"role": "user", "content": text}]}, {"configurable": {"thread_id": "1"}})
