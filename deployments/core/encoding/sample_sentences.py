"""Sentences of all sorts, for measuring how far quantised vectors are from exact ones."""

SENTENCES = """
rsi
AAPL
stop loss
what is a candlestick?
moving average crossover
when is a stock overbought?
how much should I risk per trade
TSLA earnings Q3 2024
EUR/USD broke 1.0850
support and resistance levels explained
difference between a limit order and a market order
The MACD line crossed above the signal line on the daily chart.
Volume dried up as the price drifted back to its twenty-day average.
So when is a stock overbought? The usual convention is a reading above seventy.
If you risk 1 % of a $25,000 account, a single loss costs you no more than $250.
NVDA gapped up 9.4 % at the open and closed at $131.26 on three times its usual volume.
A doji shows that buyers and sellers ended the session where they began it.
Wait for the candle to close before you call it a breakout.
The spread widens overnight, so a market order can fill far from the last price.
Shorting a stock means selling shares you have borrowed and buying them back later.
Implied volatility fell from 48 to 31 in the hour after the announcement.
The S&P 500 lost 2.3 % on Tuesday, its worst day since March.
A call option gives its owner the right, not the obligation, to buy at the strike price.
Theta is what an option loses each day that nothing happens.
We move the stop to break-even once the trade has gained twice what it risked.
Look at the weekly chart first, then the daily, and only then at the hourly one.
A head and shoulders pattern is confirmed when the neckline gives way.
The head of the central bank left interest rates unchanged at 5.25 %.
Dividends are paid to whoever holds the share before the ex-dividend date.
Bonds fall when yields rise: the old coupon is worth less than a new one.
Position sizing matters more than the entry, because one oversized loss undoes ten good trades.
Bollinger bands are drawn two standard deviations above and below a moving average.
BTC dropped below 60k and took the rest of the market with it.
A trailing stop follows the price up and never comes down.
Keep a journal: date, ticker, reason for entry, exit, result, and what you felt.
The Fibonacci retracement at 61.8 % held twice this month.
Liquidity is thin before the holiday, so expect slippage on larger orders.
Margin calls come when the account's equity falls under the maintenance requirement.
The order was rejected because the account had only 3 day trades left.
Diversification doesn't help on days when everything falls together.
On screen: a chart of gold futures with a rising wedge marked in yellow.
The instructor draws a trend line through the three most recent lows.
Slide 14: risk to reward, 1:2, 1:3 and why 1:1 isn't enough
Two monitors show an order book on the left and a five-minute chart on the right.
Close-up of a hand pointing at the 200-day moving average.
Question from the chat: does this work for forex as well?
Welcome back, everybody, to lesson seven; today we talk about divergence.
Let's pause here and do the exercise before I show you the answer.
Don't forget to download the worksheet, the link is below the video.
um, so, yeah, basically what you want to see here is, you know, a higher low
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.
The derivative of x squared is 2x.
Solve for y: 3y + 7 = 22.
The French Revolution began in 1789 and changed the map of Europe.
Mitochondria are the power stations of the cell.
In 1969 two people walked on the Moon while a third stayed in orbit.
An adjective describes a noun; an adverb describes a verb.
Please hand in your essays by Friday, 12 May, at 17:00.
She passed the exam with 87 points out of 100.
The teacher explained the experiment twice, but nobody had written down the temperature.
Water boils at 100 °C at sea level and at about 93 °C in Denver.
Shakespeare wrote 37 plays, or 38, depending on whom you ask.
A prime number has exactly two divisors.
How do vaccines work?
Plate tectonics explains why earthquakes cluster along certain lines.
The current through a resistor is proportional to the voltage across it.
Supply and demand meet at the price where nobody wants to change their mind.
It rained all morning, and the picnic was moved into the garage.
The cat slept on the warm radiator and ignored everyone.
Add two eggs, 200 g of flour and a pinch of salt, then stir until smooth.
Take the second left after the bridge, then it's the green house on the corner.
My phone died, so I couldn't call you from the station.
The train to Leeds leaves from platform 9 at 6:45.
He repaired the old bicycle and gave it to his niece.
red shoes
good morning
How are you?
Yes.
no
42
3.14159
2024-03-15T09:30:00Z
error 404: page not found
order #58213 shipped, arrives Thu 4–6 pm
https://example.com/lessons/12?ref=home
The hotel was clean and close to the beach, but the walls were so thin that we heard everything.
I've never seen so many stars as on that night in the desert.
The council voted 7 to 5 against the new car park.
Doctors advise at least seven hours of sleep and a walk every day.
The concert was sold out within eleven minutes.
Our team scored in the last second and won 3–2.
Remember to water the plants while we're away, especially the tomatoes.
The plumber charges $90 for the visit and $65 for each hour after that.
Warning: do not open the cover while the machine is running.
Nobody could say afterwards who had left the window open.
The novel follows three sisters who inherit a lighthouse and can't agree on what to do with it.
Electric cars made up 18 % of the sales last year, up from 14 % the year before.
A dog barked somewhere, then it was quiet again.
The museum is free on the first Sunday of the month.
Could you send me the invoice again? The attachment was empty.
It isn't the fall that hurts, as my grandfather used to say, it's the landing.
Während des Sturms blieb der Hafen geschlossen.
¿Dónde está la estación de tren más cercana?
Le marché ouvre à huit heures le samedi.
""".strip().splitlines()

PASSAGES = [" ".join(SENTENCES[start : start + 12]) for start in range(0, len(SENTENCES), 12)]
"""Longer texts, up to some 200 tokens."""
